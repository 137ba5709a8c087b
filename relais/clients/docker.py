"""The Docker Engine: build with BuildKit, tag, push, look; every call bounded, every refusal in the stream an error."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

import docker
import requests
from docker import auth
from docker.errors import DockerException, InvalidRepository
from docker.utils import kwargs_from_env, parse_repository_tag

from relais.clients import commands
from relais.clients.build_context import base_images, content_key, context_files, dockerfile_path, tarred
from relais.clients.buildkit import Progress
from relais.clients.docker_errors import build_error, cause, late, no_base, refused, registry_error, short, translated
from relais.errors import BadInput, Denied, Missing, RelaisError, StepFailed, Unavailable
from relais.model import Layer

__all__ = ["Built", "Engine", "Image", "Info", "Manifest", "Pushed", "base_images", "content_key", "context_files", "ensure_platform"]

CALL: Final = 60.0  # seconds for a call that is no build and no push
_TICK: Final = 3.0  # seconds between two lines about a push
_TAIL: Final = 30
Builder = Literal["buildx", "BuildKit by the Engine's API"]

_MADE: Final = re.compile(r"^(RUN )?(?:\|\d+ (?:\S+=\S* )*)?/bin/(?:ba)?sh -c (?:#\(nop\) +)?| # buildkit$")
_BUILDX_FAILED: Final = re.compile(r"^ > (\[[^\n]+?):?\n(.*?)^------$", re.MULTILINE | re.DOTALL)
_BUILDX_ERROR: Final = re.compile(r"^ERROR: (.*)$", re.MULTILINE)
_BUILDX_CLOCK: Final = re.compile(r"^\d+\.\d+ ")
# The context named default is where DOCKER_HOST points, else this machine's socket: the Engine that the SDK talks to.
_BUILDX: Final = ("docker", "--context", "default", "buildx")


@dataclass(frozen=True)
class Info:
    """The Engine as it says it is."""

    version: str
    memory: int  # bytes
    architecture: str  # linux/amd64
    root: str  # where it keeps its images
    free: int | None  # bytes of disk there; None where that is another machine's disk


@dataclass(frozen=True)
class Image:
    """An image on the Engine."""

    id: str
    tags: tuple[str, ...]
    size: int
    platform: str
    labels: Mapping[str, str]
    created: str  # ISO 8601
    digests: tuple[str, ...] = ()  # name@sha256:... where it was pushed to or pulled from


@dataclass(frozen=True)
class Built:
    """An image that was built just now."""

    id: str
    size: int
    os: str
    architecture: str
    layers: tuple[Layer, ...]  # largest first
    builder: Builder
    cached_steps: int
    log: str
    seconds: float

    @property
    def platform(self) -> str:
        return f"{self.os}/{self.architecture}"

    @property
    def log_tail(self) -> str:
        return "\n".join(self.log.splitlines()[-_TAIL:])


@dataclass(frozen=True)
class Pushed:
    """What the registry answered: the digest by which it knows the image."""

    digest: str
    size: int  # bytes of the manifest
    seconds: float


@dataclass(frozen=True)
class Manifest:
    """What a registry has under a name."""

    digest: str
    media_type: str
    platforms: tuple[str, ...]  # linux/amd64, ...


@dataclass(frozen=True)
class _Order:
    context: Path
    dockerfile: Path
    tag: str
    platform: str
    args: Mapping[str, str]
    labels: Mapping[str, str]
    timeout: float


class Engine:
    """One Docker Engine, the one that the docker command of this user talks to."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._api: Any = client.api  # the low level is untyped

    @classmethod
    def connect(cls) -> Self:
        """The Engine of DOCKER_HOST, else of this machine."""
        try:
            client = docker.from_env(timeout=int(CALL))
            client.ping()
        except (DockerException, requests.RequestException) as problem:
            if "permission denied" in str(problem).lower():
                remedy = "add the user to the group docker, and log in again"
                raise Denied(f"this user may not use the Docker Engine at {_address()}", remedy=remedy) from problem
            remedy = "start Docker (`make up` does where it may), or set DOCKER_HOST"
            raise Denied(f"no Docker Engine answers at {_address()} ({cause(problem)})", remedy=remedy) from problem
        return cls(client)

    def info(self) -> Info:
        """Version, memory, architecture and disk."""
        with translated("Docker Engine"):
            found = self._api.info()
        root = str(found.get("DockerRootDir", ""))
        local = self._is_local and Path(root).is_dir()
        architecture = f"{found.get('OSType')}/{_go(str(found.get('Architecture', '')))}"
        free = shutil.disk_usage(root).free if local else None
        return Info(str(found.get("ServerVersion", "")), int(found.get("MemTotal", 0)), architecture, root, free)

    @property
    def _is_local(self) -> bool:
        return str(self._api.base_url).startswith("http+docker://localhost")

    # -- images ----------------------------------------------------------------------------------------------------------

    def inspect(self, ref: str) -> Image:
        """The image of this name, digest or id on the Engine."""
        with translated(ref):
            return _image(self._api.inspect_image(ref))

    def image_id(self, ref: str) -> str | None:
        """What a name means on the Engine now; None where it has no such image."""
        try:
            return self.inspect(ref).id
        except Missing:
            return None

    def find(self, labels: Mapping[str, str]) -> tuple[Image, ...]:
        """The images that carry all of these labels, newest first."""
        with translated("images"):
            listed = self._api.images(filters={"label": [f"{name}={value}" for name, value in labels.items()]})
        found = (self._found(str(item["Id"])) for item in listed)
        return tuple(sorted(filter(None, found), key=lambda image: image.created, reverse=True))

    def _found(self, ref: str) -> Image | None:
        with contextlib.suppress(Missing):  # removed since it was listed
            return self.inspect(ref)
        return None

    def layers(self, ref: str) -> tuple[Layer, ...]:
        """What each instruction added, largest first."""
        with translated(ref):
            history = self._api.history(ref)
        made = (Layer(size=int(item["Size"]), created_by=_created_by(item["CreatedBy"] or item.get("Comment", ""))) for item in history)
        return tuple(sorted(made, key=lambda layer: layer.size, reverse=True))

    def tag(self, source: str, ref: str) -> None:
        """Give an image another name."""
        repository, tag = parse_repository_tag(ref)
        with translated(ref):
            self._api.tag(source, repository, tag or "latest")

    def remove(self, ref: str, *, force: bool = False) -> None:
        """Take a name from an image; without any name it is deleted. That it is not there is no error."""
        with contextlib.suppress(Missing), translated(ref):
            self._api.remove_image(ref, force=force)

    # -- build -----------------------------------------------------------------------------------------------------------

    @cached_property
    def builder(self) -> Builder:
        """Which BuildKit builds, chosen once: buildx where the docker command has it, else the Engine's own; never the classic builder."""
        if shutil.which("docker"):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                asked = subprocess.run([*_BUILDX, "version"], capture_output=True, timeout=20, check=False)
                if asked.returncode == 0 and b"buildx" in asked.stdout:
                    return "buildx"
        return "BuildKit by the Engine's API"

    def build(
        self,
        context: Path,
        dockerfile: str,
        tag: str,
        *,
        platform: str,
        args: Mapping[str, str],
        labels: Mapping[str, str],
        timeout: float,
        on_line: Callable[[str], None],
    ) -> Built:
        """Build an image; the Dockerfile is relative to the context, or absolute."""
        begun, progress = time.monotonic(), Progress(on_line)
        order = _Order(context, dockerfile_path(context, dockerfile).absolute(), tag, platform, args, labels, timeout)
        progress.say(f"building with {self.builder}")
        image = self._by_buildx(order, progress) if self.builder == "buildx" else self._by_engine(order, progress)
        with translated(tag):
            found = self._api.inspect_image(image)
        return Built(
            str(found["Id"]), int(found["Size"]), str(found["Os"]), str(found["Architecture"]), self.layers(image), self.builder,
            progress.cached_steps, progress.log, round(time.monotonic() - begun, 2),
        )  # fmt: skip

    def _by_engine(self, order: _Order, progress: Progress) -> str:
        """POST /build?version=2: BuildKit inside the Engine, which needs neither a docker command nor a session."""
        self._fetch_bases(order, progress)
        tar, name = tarred(order.context, str(order.dockerfile))
        query = {"version": "2", "t": order.tag, "dockerfile": name, "platform": order.platform,
                 "buildargs": json.dumps(dict(order.args)), "labels": json.dumps(dict(order.labels))}  # fmt: skip
        progress.say(f"build context: {_megabytes(tar.seek(0, 2))}")
        tar.seek(0)
        image, where = "", str(order.dockerfile)
        stream = self._stream("/build", query, {"Content-Type": "application/x-tar"}, order.timeout, "the build", where, tar)
        with tar, closing(stream) as items:
            for item in items:
                if item.get("id") == "moby.buildkit.trace":
                    progress.take(base64.b64decode(item["aux"]))
                elif item.get("id") == "moby.image.id":
                    image = str(item["aux"]["ID"])
                elif message := refused(item):
                    progress.finish()
                    raise build_error(message, where, *progress.failed())
        progress.finish()
        if not image:
            remedy = "look at the Engine's own log"
            raise Unavailable("the Engine ended the build without an image and without an error", where=where, remedy=remedy)
        return image

    def _fetch_bases(self, order: _Order, progress: Progress) -> None:
        """Without a session BuildKit has no credentials: what needs some is pulled before."""
        for name in base_images(order.dockerfile.read_text(encoding="utf-8", errors="replace"), order.args):
            repository, tag = parse_repository_tag(name)
            try:
                headers = self._credentials(repository, None)
            except InvalidRepository as problem:
                remedy = "a Dockerfile's FROM takes HOST/NAME:TAG"
                raise BadInput(f"the base image {name} is no name of an image", where=str(order.dockerfile), remedy=remedy) from problem
            if not headers or self.image_id(name) is not None:
                continue
            query = {"fromImage": repository, "tag": tag or "latest", "platform": order.platform}
            where = str(order.dockerfile)
            with closing(self._stream("/images/create", query, headers, order.timeout, f"the pull of {name}", where)) as items:
                for item in items:
                    if message := refused(item):
                        raise no_base(name, short(message), where)
            progress.say(f"pulled {name}")

    def _by_buildx(self, order: _Order, progress: Progress) -> str:
        """`docker buildx build --load`; one manifest and no attestations, so that there is one digest."""
        command = [*_BUILDX, "build", "--builder", "default", "--load", "--provenance=false", "--sbom=false", "--progress=plain"]
        command += ["--tag", order.tag, "--platform", order.platform, "--file", str(order.dockerfile)]
        # Values of arguments come by the environment: an argument list is readable by everybody on the machine.
        command += [part for name in order.args for part in ("--build-arg", name)]
        command += [part for name, value in order.labels.items() for part in ("--label", f"{name}={value}")]
        command.append(str(order.context))
        ran = commands.run_arguments(command, order.context, env=order.args, timeout=order.timeout, on_line=progress.say)
        if ran.timed_out:
            raise late("the build", order.timeout, str(order.dockerfile))
        if not ran.ok:
            raise _buildx_error(ran, str(order.dockerfile))
        return order.tag

    # -- registry --------------------------------------------------------------------------------------------------------

    def push(self, ref: str, *, auth: Mapping[str, str] | None, timeout: float, on_line: Callable[[str], None]) -> Pushed:
        """Push one tag; without `auth` the docker command's own credentials are used."""
        begun, (repository, tag) = time.monotonic(), parse_repository_tag(ref)
        tag = tag or "latest"
        told, pushed = _Layers(on_line), None
        headers = self._credentials(repository, auth) or {"X-Registry-Auth": base64.urlsafe_b64encode(b"{}").decode()}
        with closing(self._stream(f"/images/{repository}/push", {"tag": tag}, headers, timeout, "the push", ref)) as items:
            for item in items:
                if message := refused(item):
                    raise registry_error(message, ref)
                told.take(item)
                if isinstance(item.get("aux"), dict) and item["aux"].get("Digest"):
                    pushed = Pushed(str(item["aux"]["Digest"]), int(item["aux"].get("Size", 0)), round(time.monotonic() - begun, 2))
        if pushed is None:
            remedy = "push again: layers that are there are kept"
            raise Unavailable("the push ended without a digest and without an error", where=ref, remedy=remedy)
        return pushed

    def _credentials(self, repository: str, given: Mapping[str, str] | None) -> dict[str, str]:
        if given is not None:
            return {"X-Registry-Auth": auth.encode_header(dict(given)).decode()}
        registry, _ = auth.resolve_repository_name(repository)
        with translated(registry):
            stored = auth.get_config_header(self._api, registry)
        return {"X-Registry-Auth": stored.decode()} if stored else {}

    def manifest(self, ref: str, *, auth: Mapping[str, str] | None = None) -> Manifest:
        """What the registry has under this name, asked without pulling it."""
        with translated(ref, registry_error):
            found = self._api.inspect_distribution(ref, auth_config=dict(auth) if auth is not None else None)
        descriptor = found["Descriptor"]
        platforms = tuple(f"{p.get('os')}/{p.get('architecture')}" for p in found.get("Platforms") or () if p.get("os") != "unknown")
        return Manifest(str(descriptor["digest"]), str(descriptor["mediaType"]), platforms)

    # -- streams ---------------------------------------------------------------------------------------------------------

    def _stream(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], timeout: float, what: str, where: str, body: Any = None
    ) -> Generator[dict[str, Any], None, None]:
        """The items of a long call. At the limit, or when it is closed, the connection ends, and with it the Engine's work."""
        watch = _Watch(timeout)
        try:
            with translated(where):
                answer = self._api.post(
                    self._api._url(path), params=dict(query), headers=dict(headers), data=body, stream=True, timeout=timeout
                )
                with watch.over(answer):
                    self._api._raise_for_status(answer)
                    for line in answer.iter_lines():
                        if line.strip():
                            yield json.loads(line)
        except (Unavailable, ValueError) as problem:
            if watch.late:
                raise late(what, timeout, where) from problem
            raise
        if watch.late:
            raise late(what, timeout, where)


class _Watch:
    """Ends a streamed answer when its time is over: a read that waits cannot look at the clock."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._rang = threading.Event()

    @property
    def late(self) -> bool:
        return self._rang.is_set() or time.monotonic() > self._deadline

    @contextmanager
    def over(self, answer: requests.Response) -> Iterator[None]:
        timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), self._ring, [answer])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            answer.close()

    def _ring(self, answer: requests.Response) -> None:
        self._rang.set()
        with contextlib.suppress(ValueError, RuntimeError, OSError):  # it has just ended by itself
            answer.raw.shutdown()


class _Layers:
    """A push as lines: what became of each layer, and how far the whole is."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line, self._told, self._next = on_line, set[tuple[str, str]](), time.monotonic() + _TICK
        self._sizes: dict[str, tuple[int, int]] = {}

    def take(self, item: Mapping[str, Any]) -> None:
        """One item of the stream."""
        layer, status, detail = str(item.get("id", "")), str(item.get("status", "")), item.get("progressDetail") or {}
        if detail.get("total"):
            self._sizes[layer] = (int(detail.get("current", 0)), int(detail["total"]))
            if time.monotonic() > self._next:
                self._next = time.monotonic() + _TICK
                done, whole = (sum(sizes) for sizes in zip(*self._sizes.values(), strict=True))
                self._on_line(f"pushing: {_megabytes(min(done, whole))} of {_megabytes(whole)}")
        elif status and status not in ("Preparing", "Waiting", "Pushing") and (layer, status) not in self._told:
            self._told.add((layer, status))
            self._on_line(f"{layer}: {status}" if layer else status)


def ensure_platform(built: Built | Image, wanted: str) -> None:
    """An image of another platform starts nowhere that matters: Cloud Run says so only after minutes."""
    if built.platform != wanted:
        raise StepFailed(
            f"the image is {built.platform}, and Cloud Run needs {wanted}", where=built.id,
            remedy=f"remove --platform from FROM, or build on a base image of {wanted}",
        )  # fmt: skip


def _buildx_error(ran: commands.Ran, where: str) -> RelaisError:
    if ran.started_error is not None:
        return Denied(ran.started_error, where=where, remedy="install the docker command, with buildx")
    messages, failed = _BUILDX_ERROR.findall(ran.output), _BUILDX_FAILED.findall(ran.output)
    step, said = failed[-1] if failed else ("", "" if messages else ran.tail(_TAIL))
    lines = tuple(_BUILDX_CLOCK.sub("", line) for line in said.splitlines())
    return build_error(messages[-1] if messages else ran.reason, where, step, lines)


def _address() -> str:
    return str(kwargs_from_env().get("base_url") or "unix:///var/run/docker.sock")


# -- words -----------------------------------------------------------------------------------------------------------------


def _image(found: Mapping[str, Any]) -> Image:
    config = found.get("Config") or {}
    return Image(
        str(found["Id"]), tuple(found.get("RepoTags") or ()), int(found["Size"]), f"{found['Os']}/{found['Architecture']}",
        dict(config.get("Labels") or {}), str(found.get("Created", "")), tuple(found.get("RepoDigests") or ()),
    )  # fmt: skip


def _created_by(text: str) -> str:
    return _MADE.sub(lambda m: m[1] or "", " ".join(text.split()))[:1000]


def _go(architecture: str) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(architecture, architecture)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
