"""What an instance of a revision needs to run: read from the revision once, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from google.cloud import run_v2

from localcloud.instances import failures
from localcloud.naming import ServiceName, project_number, short
from localcloud.run.scaling import DEFAULT_MOST
from localcloud.sizes import cpu_count, memory_bytes
from localcloud.wire import Refusal

ProbeKind = Literal["TCP", "HTTP", "GRPC"]


@dataclass(frozen=True)
class Probe:
    """A start-up or liveness probe. `default` is the start-up probe that nobody asked for: it tries for the whole time allowed."""

    kind: ProbeKind = "TCP"
    port: int = 8080
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    service: str = ""
    initial_delay_s: float = 0
    timeout_s: float = 240
    period_s: float = 240
    attempts: int = 1

    @property
    def default(self) -> bool:
        """Whether it is what the service fills in by itself."""
        return self.kind == "TCP" and (self.timeout_s, self.period_s, self.attempts) == (240, 240, 1)


class Secrets(Protocol):
    """Where the values of secrets are."""

    def access(self, secret: str, project: str, version: str, account: str) -> bytes:
        """Give an account a version (number, alias or "latest") of a secret (NAME in the project, or its full name); a Refusal if not."""


@dataclass(frozen=True)
class Secret:
    """An environment variable whose value is in a secret; `index` is its place in env."""

    variable: str
    secret: str
    version: str
    index: int


@dataclass(frozen=True)
class SecretFile:
    """A file of a secret volume."""

    path: str
    version: str
    mode: int


@dataclass(frozen=True)
class Volume:
    """A volume: the files of a secret, or (`secret` is "") room in memory that an instance's containers share."""

    name: str
    secret: str = ""
    files: tuple[SecretFile, ...] = ()
    size: int = 0


@dataclass(frozen=True)
class Part:
    """One container of an instance. `image` is by digest; `port` is 0 unless it gets the requests."""

    name: str
    index: int
    image: str
    port: int
    env: tuple[tuple[str, str], ...] = field(repr=False)
    secrets: tuple[Secret, ...]
    command: tuple[str, ...]
    args: tuple[str, ...]
    working_dir: str
    cpu: float
    memory: int
    startup: Probe | None
    liveness: Probe | None
    after: tuple[str, ...]
    mounts: tuple[tuple[str, str], ...]  # volume, path


@dataclass(frozen=True)
class Blueprint:
    """One revision, ready to be run. Of its parts, each comes after those that it depends on."""

    service: ServiceName
    revision: str
    uid: str
    parts: tuple[Part, ...]
    volumes: tuple[Volume, ...]
    timeout_s: float
    concurrency: int
    least: int
    most: int
    account: str
    labels: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """The revision's full name."""
        return self.service.revision(self.revision)

    @property
    def ingress(self) -> Part:
        """The part that gets the requests."""
        return next(each for each in self.parts if each.port)

    @property
    def ports(self) -> tuple[int, ...]:
        """All ports that must be reached from outside: requests' and probes'."""
        probes = [probe.port for each in self.parts for probe in (each.startup, each.liveness) if probe]
        return tuple(sorted({self.ingress.port, *probes}))


def read(revision: run_v2.Revision, images: str, labels: Mapping[str, str]) -> Blueprint:
    """Read a revision; `images` are the references by digest that its containers' images were resolved to, between spaces.

    `labels` are its service's: log entries have them, and the revision's own before them [which goes first: approximated].
    """
    name = ServiceName.parse(revision.service)
    ingress = next((index for index, each in enumerate(revision.containers) if each.ports), 0)
    parts = [
        _part(each, index, image, name.service, serves=index == ingress)
        for index, (each, image) in enumerate(zip(revision.containers, images.split(), strict=True))
    ]
    return Blueprint(
        service=name,
        revision=short(revision.name),
        uid=revision.uid,
        parts=_in_order(parts),
        volumes=tuple(_volume(each) for each in revision.volumes),
        timeout_s=revision.timeout.total_seconds(),
        concurrency=revision.max_instance_request_concurrency,
        least=revision.scaling.min_instance_count,
        most=revision.scaling.max_instance_count or DEFAULT_MOST,
        account=revision.service_account or f"{project_number(name.project)}-compute@developer.gserviceaccount.com",
        labels=tuple(sorted({**labels, **revision.labels}.items())),
    )


def _part(container: run_v2.Container, index: int, image: str, service: str, *, serves: bool) -> Part:
    port = container.ports[0].container_port if serves else 0
    return Part(
        name=container.name or f"{service}-{index + 1}",
        index=index,
        image=image,
        port=port,
        env=tuple((variable.name, variable.value) for variable in container.env if "value_source" not in variable),
        secrets=tuple(
            Secret(each.name, each.value_source.secret_key_ref.secret, each.value_source.secret_key_ref.version or "latest", index)
            for index, each in enumerate(container.env)
            if "value_source" in each
        ),
        command=tuple(container.command),
        args=tuple(container.args),
        working_dir=container.working_dir,
        cpu=cpu_count(container.resources.limits["cpu"]) or 1.0,
        memory=memory_bytes(container.resources.limits["memory"]) or 512 * 2**20,
        startup=_probe(container.startup_probe, port) if "startup_probe" in container else None,
        liveness=_probe(container.liveness_probe, port) if "liveness_probe" in container else None,
        after=tuple(container.depends_on),
        mounts=tuple((each.name, each.mount_path) for each in container.volume_mounts),
    )


def _in_order(parts: list[Part]) -> tuple[Part, ...]:
    """Those first that depend on none of the rest; in a circle nobody can be first, so it stays as it is."""
    ordered: list[Part] = []
    rest = parts
    while rest:
        names = {each.name for each in rest}
        free = [each for each in rest if not names & set(each.after)] or rest
        ordered += free
        rest = [each for each in rest if each not in free]
    return tuple(ordered)


def _probe(given: run_v2.Probe, port: int) -> Probe:
    http, grpc = "http_get" in given, "grpc" in given
    asked = given.http_get.port if http else given.grpc.port if grpc else given.tcp_socket.port
    return Probe(
        kind="HTTP" if http else "GRPC" if grpc else "TCP",
        port=asked or port or 8080,
        path=(given.http_get.path or "/") if http else "",
        headers=tuple((header.name, header.value) for header in given.http_get.http_headers) if http else (),
        service=given.grpc.service if grpc else "",
        initial_delay_s=given.initial_delay_seconds,
        timeout_s=given.timeout_seconds or 1,
        period_s=given.period_seconds or 10,
        attempts=given.failure_threshold or 3,
    )


def _volume(given: run_v2.Volume) -> Volume:
    if "empty_dir" in given:
        return Volume(given.name, size=memory_bytes(given.empty_dir.size_limit) or 0)
    source = given.secret
    usual = source.default_mode or 0o444
    files = [SecretFile(each.path, each.version or "latest", each.mode or usual) for each in source.items]
    return Volume(given.name, source.secret, tuple(files) or (SecretFile(short(source.secret), "latest", usual),))


def environment(blueprint: Blueprint, part: Part, secrets: Secrets) -> dict[str, str]:
    """The whole environment of a container; a secret that cannot be read is a Failure."""
    found = dict(part.env)
    for wanted in part.secrets:
        where = f"spec.template.spec.containers[{part.index}].env[{wanted.index}].value_from.secret_key_ref.name"
        value = secret_value(blueprint, wanted.secret, wanted.version, where, secrets)
        try:
            found[wanted.variable] = value.decode()
        except UnicodeDecodeError:
            full = _full_name(blueprint, wanted.secret)
            raise failures.secret_not_text(blueprint.revision, where, full, wanted.version) from None
    if part.port:
        found["PORT"] = str(part.port)
    service = blueprint.service.service
    return found | {"K_SERVICE": service, "K_REVISION": blueprint.revision, "K_CONFIGURATION": service}


def secret_value(blueprint: Blueprint, secret: str, version: str, where: str, secrets: Secrets) -> bytes:
    """The value of a secret; a Failure if it cannot be read. `where` is the field that names it."""
    try:
        return secrets.access(secret, blueprint.service.project, version, blueprint.account)
    except Refusal as refusal:
        full = _full_name(blueprint, secret)
        raise failures.secret_refused(blueprint.revision, where, full, version, blueprint.account, refusal) from None


def _full_name(blueprint: Blueprint, secret: str) -> str:
    return secret if "/" in secret else f"projects/{blueprint.service.project}/secrets/{secret}"
