"""What an instance of a revision needs to run: read from the revision once, as plain values."""

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from google.cloud import run_v2

from localcloud import failures
from localcloud.naming import ServiceName, short
from localcloud.sizes import cpu_count, memory_bytes
from localcloud.wire import Refusal

ProbeKind = Literal["TCP", "HTTP", "GRPC"]


@dataclass(frozen=True)
class Probe:
    """The start-up probe. `default` is the one that nobody asked for: it tries for the whole time allowed."""

    kind: ProbeKind = "TCP"
    port: int = 8080
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
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

    def access(self, secret: str, project: str, version: str) -> bytes:
        """Give a version (number, alias or "latest") of a secret (NAME in the project, or projects/P/secrets/NAME); a Refusal if not."""


@dataclass(frozen=True)
class Secret:
    """An environment variable whose value is in a secret; `index` is its place in env."""

    variable: str
    secret: str
    version: str
    index: int


@dataclass(frozen=True)
class Blueprint:
    """One revision, ready to be run. `image` is by digest."""

    service: ServiceName
    revision: str
    uid: str
    image: str
    port: int
    env: tuple[tuple[str, str], ...] = field(repr=False)
    secrets: tuple[Secret, ...]
    command: tuple[str, ...]
    args: tuple[str, ...]
    working_dir: str
    cpu: float
    memory: int
    probe: Probe
    timeout_s: float
    concurrency: int
    least: int
    container: str
    labels: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """The revision's full name."""
        return self.service.revision(self.revision)


def read(revision: run_v2.Revision, image: str) -> Blueprint:
    """Read a revision; `image` is the reference by digest that its image was resolved to."""
    name = ServiceName.parse(revision.service)
    container = next((each for each in revision.containers if each.ports), revision.containers[0])
    short_name = short(revision.name)
    return Blueprint(
        service=name,
        revision=short_name,
        uid=revision.uid,
        image=image,
        port=container.ports[0].container_port,
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
        probe=_probe(container),
        timeout_s=revision.timeout.total_seconds(),
        concurrency=revision.max_instance_request_concurrency,
        least=revision.scaling.min_instance_count,
        container=container.name or f"{name.service}-1",
        labels=tuple(sorted(revision.labels.items())),
    )


def _probe(container: run_v2.Container) -> Probe:
    given, port = container.startup_probe, container.ports[0].container_port
    probe = Probe(
        port=given.tcp_socket.port or port,
        initial_delay_s=given.initial_delay_seconds,
        timeout_s=given.timeout_seconds,
        period_s=given.period_seconds,
        attempts=given.failure_threshold,
    )
    if "http_get" in given:
        headers = tuple((header.name, header.value) for header in given.http_get.http_headers)
        return replace(probe, kind="HTTP", port=given.http_get.port or port, path=given.http_get.path or "/", headers=headers)
    if "grpc" in given:
        return replace(probe, kind="GRPC", port=given.grpc.port or port)
    return probe


def environment(blueprint: Blueprint, secrets: Secrets) -> dict[str, str]:
    """The whole environment of an instance; a secret that cannot be read is a Failure."""
    found = dict(blueprint.env)
    project = blueprint.service.project
    for wanted in blueprint.secrets:
        full = wanted.secret if "/" in wanted.secret else f"projects/{project}/secrets/{wanted.secret}"
        try:
            found[wanted.variable] = secrets.access(wanted.secret, project, wanted.version).decode()
        except Refusal as refusal:
            raise failures.secret_refused(blueprint.revision, wanted.index, full, wanted.version, refusal) from None
        except UnicodeDecodeError:
            raise failures.secret_not_text(blueprint.revision, wanted.index, full, wanted.version) from None
    found |= {
        "PORT": str(blueprint.port),
        "K_SERVICE": blueprint.service.service,
        "K_REVISION": blueprint.revision,
        "K_CONFIGURATION": blueprint.service.service,
    }
    return found
