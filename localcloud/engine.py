"""The Docker Engine, as the local cloud uses it: every call in a thread, with a time limit, and its errors in one place."""

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, InvalidRepository, NotFound
from docker.utils import parse_repository_tag

from localcloud import failures
from localcloud.blueprint import Blueprint
from localcloud.wire import Code, Refusal

T = TypeVar("T")
CLONE, SERVICE, REVISION, NAME, UID = "relais.clone", "relais.service", "relais.revision", "relais.name", "relais.uid"
_PING_S, _CALL_S, _PULL_S = 5, 30, 600


class EngineDown(Refusal):
    """The Docker Engine does not answer."""

    def __init__(self, error: object) -> None:
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        reason = str(error).split("\n", 1)[0][:200]
        text = f"The Docker Engine does not answer at {where} ({reason}). Start it (sudo systemctl start docker, or dockerd) and try again."
        super().__init__(Code.UNAVAILABLE, text)


@dataclass(frozen=True)
class Container:
    """A container of this clone. `ports` are those on the host, by the container's own."""

    id: str
    service: str
    revision: str
    uid: str
    running: bool
    exit_code: int
    out_of_memory: bool
    ports: dict[int, int]


class Engine:
    """The containers of one clone."""

    def __init__(self, clone: str) -> None:
        self.clone = clone
        self.credentials: Callable[[str], dict[str, str] | None] = lambda _: None  # what to show the registry of an image
        self._client: Any = None
        self._lock = threading.Lock()
        self._cpus = 0.0
        self._threads = ThreadPoolExecutor(max_workers=24, thread_name_prefix="docker")

    async def check(self) -> None:
        """Raise EngineDown unless the Engine answers."""
        await self._call(lambda api: api.ping(), seconds=_PING_S)

    async def resolve(self, project: str, revision: str, image: str) -> str:
        """Give the image by its digest, as the registry has it now; a Failure if it is missing, closed to us or for another machine."""
        try:
            found = await self._call(lambda api: api.inspect_distribution(image, auth_config=self.credentials(image)))
        except NotFound:
            raise failures.image_missing(revision, image) from None
        except InvalidRepository as error:
            raise failures.image_unreachable(revision, image, str(error)) from None
        except APIError as error:
            raise _image_failure(project, revision, image, error) from None
        descriptor, platforms = found["Descriptor"], found.get("Platforms") or []
        if platforms and not any((each.get("architecture"), each.get("os")) == ("amd64", "linux") for each in platforms):
            raise failures.image_architecture(revision, image, descriptor["mediaType"])
        repository, _ = parse_repository_tag(image)
        return f"{repository}@{descriptor['digest']}"

    async def fetch(self, project: str, revision: str, image: str) -> None:
        """Have the image (by digest) on this machine, from the registry if needed."""
        try:
            await self._call(lambda api: api.inspect_image(image))
            return
        except ImageNotFound:
            pass
        try:
            await self._call(lambda api: api.pull(image, platform="linux/amd64", auth_config=self.credentials(image)), seconds=_PULL_S)
        except NotFound:
            raise failures.image_missing(revision, image) from None
        except APIError as error:
            raise _image_failure(project, revision, image, error) from None

    async def create(self, blueprint: Blueprint, environment: dict[str, str]) -> str:
        """Make the container of an instance, not yet started, and give its id."""
        return await self._call(lambda api: self._create(api, blueprint, environment))

    def _create(self, api: Any, blueprint: Blueprint, environment: dict[str, str]) -> str:
        self._cpus = self._cpus or float(api.info()["NCPU"])
        ports = sorted({blueprint.port, blueprint.probe.port})
        host = api.create_host_config(
            port_bindings={port: ("127.0.0.1", None) for port in ports},
            mem_limit=blueprint.memory,
            memswap_limit=blueprint.memory,
            nano_cpus=int(min(blueprint.cpu, self._cpus) * 1e9),  # the Engine refuses more than the machine has
            log_config={"type": "json-file", "config": {"max-size": "64m", "max-file": "2"}},
        )
        made = api.create_container(
            blueprint.image,
            command=list(blueprint.args) or None,
            entrypoint=list(blueprint.command) or None,
            working_dir=blueprint.working_dir or None,
            environment=environment,
            ports=ports,
            labels={
                CLONE: self.clone,
                SERVICE: blueprint.service.service,
                REVISION: blueprint.revision,
                NAME: blueprint.key,
                UID: blueprint.uid,
            },
            name=f"relais-{self.clone}-{blueprint.revision}-{os.urandom(3).hex()}",
            host_config=host,
        )
        return str(made["Id"])

    async def start(self, container: str) -> None:
        """Start a container; APIError when its command cannot be run."""
        await self._call(lambda api: api.start(container))

    async def inspect(self, container: str) -> Container | None:
        """How a container is; None when it is gone."""
        try:
            return _container(await self._call(lambda api: api.inspect_container(container)))
        except NotFound:
            return None

    async def containers(self) -> list[Container]:
        """All containers of this clone, running or not."""
        label = f"{CLONE}={self.clone}"
        listed = await self._call(lambda api: api.containers(all=True, filters={"label": label}))
        found = [await self.inspect(each["Id"]) for each in listed]
        return [each for each in found if each is not None]

    async def stop(self, container: str, grace_s: int = 10) -> None:
        """Send SIGTERM, and SIGKILL after the grace time."""
        try:
            await self._call(lambda api: api.stop(container, timeout=grace_s), seconds=grace_s + _CALL_S)
        except NotFound:
            return

    async def remove(self, container: str) -> None:
        """Remove a container, running or not."""
        try:
            await self._call(lambda api: api.remove_container(container, force=True, v=True))
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # 409: it is already being removed
                raise

    def lines(self, container: str, stream: str, since: float) -> Iterator[bytes]:
        """Follow one stream of a container's output, each line with its time stamp; blocks: for threads of their own."""
        api = self._api()
        which = {"stdout": stream == "stdout", "stderr": stream == "stderr"}
        yield from api.logs(container, stream=True, follow=True, timestamps=True, since=since or None, **which)

    def running_now(self, container: str) -> bool:
        """Whether a container runs; blocks: for threads of their own."""
        try:
            return bool(self._do(lambda api: api.inspect_container(container))["State"]["Running"])
        except NotFound:
            return False

    def watch(self, happened: Callable[[str, str], None], lost: Callable[[], None]) -> None:
        """Call `happened` with every container that ends (`die`) or is sent a signal (`kill`), for ever, in a thread.

        `lost` is called whenever events may have been missed.
        """
        threading.Thread(target=self._watch, args=(happened, lost), daemon=True, name="docker-events").start()

    def _watch(self, happened: Callable[[str, str], None], lost: Callable[[], None]) -> None:
        filters = {"label": f"{CLONE}={self.clone}", "event": ["die", "kill"], "type": "container"}
        while True:
            try:
                stream = self._api().events(decode=True, filters=filters)
                lost()
                for event in stream:
                    happened(str(event["Actor"]["ID"]), str(event["Action"]))
            except (DockerException, EngineDown, requests.RequestException, OSError, ValueError):
                pass
            time.sleep(1)

    def _api(self) -> Any:
        with self._lock:
            if self._client is None:
                try:
                    self._client = docker.from_env(timeout=_CALL_S)
                except (DockerException, requests.RequestException, OSError) as error:
                    raise EngineDown(error) from None
            return self._client.api

    def _do(self, work: Callable[[Any], T]) -> T:
        try:
            return work(self._api())
        except APIError:  # it answers; what it says is for whoever asked
            raise
        except requests.RequestException as error:
            raise EngineDown(error) from None

    async def _call(self, work: Callable[[Any], T], seconds: float = _CALL_S) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(self._do, work))
        try:
            return await asyncio.wait_for(running, seconds)
        except TimeoutError:
            raise EngineDown(f"no answer in {seconds:.0f} s") from None

    def close(self) -> None:
        """Let go of the threads; containers go on."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _container(found: Any) -> Container:
    state, labels = found["State"], found["Config"]["Labels"] or {}
    bindings = found["NetworkSettings"].get("Ports") or {}
    ports = {int(inner.split("/")[0]): int(outer[0]["HostPort"]) for inner, outer in bindings.items() if outer}
    return Container(
        id=found["Id"],
        service=labels.get(NAME, "").split("/revisions/")[0],
        revision=labels.get(REVISION, ""),
        uid=labels.get(UID, ""),
        running=state["Running"],
        exit_code=state["ExitCode"],
        out_of_memory=state["OOMKilled"],
        ports=ports,
    )


def _image_failure(project: str, revision: str, image: str, error: APIError) -> failures.Failure:
    text = str(error.explanation or error)
    lower = text.lower()
    if any(word in lower for word in ("manifest unknown", "name unknown", "not found", "does not exist")):
        return failures.image_missing(revision, image)
    if any(word in lower for word in ("unauthorized", "denied", "no basic auth", "authentication required")):
        return failures.image_denied(revision, project, image)
    if "no matching manifest" in lower:
        return failures.image_architecture(revision, image, "application/vnd.oci.image.index.v1+json")
    return failures.image_unreachable(revision, image, text)
