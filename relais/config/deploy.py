"""The revision, and the commands around it; what is not given is kept as it serves."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from relais.config.scalars import (
    GI,
    MI,
    ByteSize,
    Cpus,
    Duration,
    EnvName,
    Flag,
    Line,
    Memory,
    RepoPath,
    Size,
    Text,
    Whole,
    Wrong,
    between,
    formed,
    nearest,
    template,
    unquoted,
)
from relais.config.section import MANY, NAMES, TEXT_FORM, Secrets, Section, TimeLimit, distinct, named, short_form

Image = Annotated[str, formed(r"serving|(\S+@)?sha256:[0-9a-f]{64}", "an image by digest", "write sha256:..., NAME@sha256:..., or serving")]
CloudSql = Annotated[str, formed(r"[^\s:]+(:[^\s:]+)?:[^\s:]+:[^\s:]+", "an instance", "write PROJECT:REGION:INSTANCE")]
Label = Annotated[str, formed(r"[a-z][a-z0-9_-]{0,62}", "a label's name", "write up to 63 lower-case letters, digits, _ and -")]
LabelValue = Annotated[str, formed(r"[a-z0-9_-]{0,63}", "a label's value", "write up to 63 lower-case letters, digits, _ and -")]
SecretName = Annotated[
    str, formed(r"(projects/[a-z0-9:.-]+/secrets/)?[A-Za-z0-9_-]{1,255}", "a secret's name", "write SECRET:latest or SECRET:3")
]
VersionName = Annotated[
    str, formed(r"latest|[1-9][0-9]{0,9}|[A-Za-z][A-Za-z0-9_-]{0,62}", "a secret's version", "write latest, a number from 1, or an alias")
]
Port = Annotated[Whole, Field(ge=1, le=65535)]


class EnvRules(Section):
    """How environment variables are shown."""

    plain: tuple[EnvName, ...] = ()
    """Variables whose values are shown in plans and documents."""
    plain_secrets: Literal["warn", "forbid"] = "warn"
    """What to do about what looks like a secret in the env file."""


class SecretVersion(Section):
    """A version of a secret in Secret Manager."""

    short = TEXT_FORM
    secret: SecretName
    """The secret's name, or projects/P/secrets/NAME."""
    version: VersionName = "latest"
    """A number, an alias, or latest: resolved to a number, and pinned on the candidate."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        if not isinstance(data, str):
            return data
        secret, colon, version = data.rpartition(":")
        return {"secret": secret, "version": version} if colon else {"secret": data}


class Probe(Section):
    """A health probe of a container."""

    get: Annotated[str, formed(r"/\S*", "a path", "write it from the first /")] | None = None
    """The path that must answer."""
    tcp: Flag = False
    """A connection is enough."""
    grpc: Flag = False
    """The gRPC health service answers."""
    port: Port | None = None
    """The port; otherwise the container's."""
    initial_delay: Annotated[Duration, between("0s", "240s")] = timedelta(0)
    """The wait before the first probe."""
    period: Annotated[Duration, between("1s", "240s")] = timedelta(seconds=10)
    """The time between probes."""
    timeout: Annotated[Duration, between("1s", "240s")] = timedelta(seconds=1)
    """The longest a probe may take."""
    failures: Annotated[Whole, Field(ge=1, le=240)] = 3
    """So many failures in a row count."""

    @field_validator("timeout")
    @classmethod
    def _at_most_period(cls, timeout: timedelta, info: ValidationInfo) -> timedelta:
        if (period := info.data.get("period")) and timeout > period:
            raise Wrong("is longer than the period between probes", "lower timeout, or raise period")
        return timeout

    @model_validator(mode="after")
    def _one_kind(self) -> "Probe":
        if (self.get is not None) + self.tcp + self.grpc != 1:
            raise Wrong("does not say what to ask", "write exactly one of get, tcp, grpc")
        return self


class Probes(Section):
    """The health probes of the container."""

    startup: Probe | None = None
    """Until it succeeds, the instance gets no request."""
    liveness: Probe | None = None
    """When it fails, the instance is replaced."""


class Scaling(Section):
    """Service-level scaling; it wins over the revision's."""

    min_instances: Annotated[Whole, Field(ge=0, le=5000)] | None = None
    """Instances kept over all revisions."""
    max_instances: Annotated[Whole, Field(ge=1, le=5000)] | None = None
    """The most instances over all revisions."""


class Vpc(Section):
    """How the revision reaches a private network."""

    network: Line | None = None
    """The network, for direct egress."""
    subnet: Line | None = None
    """The subnet, for direct egress."""
    tags: tuple[Line, ...] = ()
    """Network tags."""
    connector: Line | None = None
    """The Serverless VPC Access connector, in place of a network."""
    egress: Literal["private-ranges-only", "all-traffic"] = "private-ranges-only"
    """Which traffic goes through the network."""

    @model_validator(mode="after")
    def _one_way(self) -> "Vpc":
        if bool(self.connector) == bool(self.network or self.subnet):
            raise Wrong("does not say which network", "write either connector, or network and subnet")
        return self


class Volume(Section):
    """Something mounted in the container."""

    name: Annotated[str, formed(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "a volume's name", "write lower-case letters, digits and -")]
    """The volume's name."""
    mount: Annotated[str, formed(r"/[^\s:]*", "a path in the container", "write it from the first /")]
    """Where it is mounted."""
    secret: SecretVersion | None = None
    """A secret's version, as a file."""
    bucket: Line | None = None
    """A Cloud Storage bucket."""
    nfs: Annotated[str, formed(r"[^\s:/]+:/\S*", "an NFS export", "write server:/path")] | None = None
    """An NFS export."""
    memory: ByteSize | None = None
    """A file system in memory, of at most this size."""
    read_only: Flag = False
    """Nothing can be written."""

    @model_validator(mode="after")
    def _one_source(self) -> "Volume":
        if sum(source is not None for source in (self.secret, self.bucket, self.nfs, self.memory)) != 1:
            raise Wrong("does not say what is mounted", "write exactly one of secret, bucket, nfs, memory")
        return self


_ALLOWED = (
    *(f"lower {what}" for what in ("memory", "cpu", "timeout", "max_instances")),
    *(f"change {what}" for what in ("access", "service_account", "ingress")),
)


def _allowance(value: str) -> str:
    words = value.split()
    if " ".join(words) in _ALLOWED or (len(words) == 3 and words[0] == "remove" and words[1] in ("env", "secret", "route")):
        return " ".join(words)
    remedy = nearest(" ".join(words), (*_ALLOWED, "remove env NAME", "remove secret NAME", "remove route PATH"))
    raise Wrong(f"{value or 'nothing'} is nothing that can be allowed", remedy)


class Deploy(Section):
    """The revision; what is not given is kept as it serves."""

    revision_suffix: Annotated[str, template(*NAMES)] = "{short_commit}"
    """The revision is SERVICE-SUFFIX; a name that is taken by something else gets -2, -3."""
    ready_within: Annotated[Duration, between("10s", "1h")] = timedelta(minutes=10)
    """The longest until the revision is ready."""
    image: Image | None = None
    """With build: false, the image: a digest, or serving (the default) for the one that serves."""
    container: Line | None = None
    """The container to change, of several; otherwise the one with the port."""
    timeout: Annotated[Duration, between("1s", "60m")] | None = None
    """The longest that a request may take."""
    cpu: Cpus | None = None
    """CPUs of an instance: 1, 2, 4, 6, 8, or a part of one."""
    memory: Memory | None = None
    """Memory of an instance."""
    concurrency: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    """Requests that an instance serves at once."""
    min_instances: Annotated[Whole, Field(ge=0, le=5000)] | None = None
    """Instances of the revision that are kept."""
    max_instances: Annotated[Whole, Field(ge=1, le=5000)] | None = None
    """The most instances of the revision."""
    env_file: RepoPath | None = None
    """Environment variables in YAML, merged into what serves, never a replacement."""
    env: EnvRules = EnvRules()
    """How environment variables are shown."""
    secrets: Mapping[EnvName, SecretVersion] = {}
    """Environment variables from Secret Manager, merged into what serves."""
    public: Annotated[Literal[True, False, "keep"], BeforeValidator(unquoted)] = "keep"
    """Whether anybody may call the service: true, false, or keep."""
    service_account: Annotated[str, formed(r"[^\s@]+@[^\s@]+\.[^\s@]+", "a service account", "write its e-mail address")] | None = None
    """Whom the revision acts as."""
    ingress: Literal["all", "internal", "internal-and-cloud-load-balancing"] | None = None
    """From where requests may come."""
    labels: Mapping[Label, LabelValue] = {}
    """Labels, merged into what serves."""
    probes: Probes = Probes()
    """Health probes."""
    cpu_boost: Flag | None = None
    """More CPU while an instance starts."""
    cpu_always: Flag | None = None
    """CPU between requests too."""
    session_affinity: Flag | None = None
    """A client stays with its instance, and during a split with its revision."""
    execution_environment: Literal["gen1", "gen2"] | None = None
    """The execution environment."""
    cloudsql: tuple[CloudSql, ...] | None = None
    """Cloud SQL instances to connect to."""
    vpc: Vpc | None = None
    """How the revision reaches a private network."""
    volumes: Annotated[tuple[Volume, ...], distinct(named, "the volume")] | None = None
    """What is mounted."""
    command: Annotated[tuple[str, ...], MANY] | None = None
    """The command, in place of the image's entry point."""
    args: Annotated[tuple[str, ...], MANY] | None = None
    """The command's arguments."""
    port: Port | None = None
    """The port that the container listens on."""
    scaling: Scaling | None = None
    """Service-level scaling."""
    allow: tuple[Annotated[str, AfterValidator(_allowance)], ...] = ()
    """What may be lost, by name: lower memory, remove env NAME, change access, remove route PATH."""
    background: tuple[Line, ...] = ()
    """Work that no split divides, named in the plan."""

    @field_validator("memory")
    @classmethod
    def _memory_fits_cpu(cls, memory: Size | None, info: ValidationInfo) -> Size | None:
        if memory and (cpu := info.data.get("cpu")):
            least, most = next((low, high) for cores, low, high in _MEMORY_OF_CPU if cpu.cores <= cores)
            if memory.bytes < least:
                raise Wrong(f"{memory} is too little for {cpu} CPU", f"write at least {least // GI}Gi, or fewer CPUs")
            if memory.bytes > most:
                raise Wrong(f"{memory} is too much for {cpu} CPU", f"write at most {_gi(most)}, or more CPUs")
        return memory

    @field_validator("concurrency")
    @classmethod
    def _concurrency_fits_cpu(cls, concurrency: int | None, info: ValidationInfo) -> int | None:
        if concurrency and concurrency > 1 and (cpu := info.data.get("cpu")) and cpu.cores < 1:
            raise Wrong(f"{concurrency} requests at once need a whole CPU", "write concurrency: 1, or cpu: 1")
        return concurrency

    @field_validator("max_instances")
    @classmethod
    def _at_least_min(cls, most: int | None, info: ValidationInfo) -> int | None:
        if most is not None and (least := info.data.get("min_instances")) is not None and least > most:
            raise Wrong(f"{most} is less than min_instances, {least}", "raise max_instances, or lower min_instances")
        return most


_MEMORY_OF_CPU = ((0.999, 0, 512 * MI), (1, 0, 4 * GI), (2, 0, 8 * GI), (4, 2 * GI, 16 * GI), (6, 4 * GI, 24 * GI), (8, 4 * GI, 32 * GI))


def _gi(count: int) -> str:
    return f"{count // GI}Gi" if count >= GI else f"{count // MI}Mi"


class Hook(Section):
    """A command with the release's facts in its environment."""

    short = TEXT_FORM
    run: Text
    """The command, run in the service's repository."""
    name: Line | None = None
    """Its name in the run; otherwise the command."""
    secrets: Secrets = Field(default_factory=dict)
    """Secrets that it needs: variable, and the Prefect Secret block that holds it."""
    timeout: TimeLimit = timedelta(minutes=5)
    """The longest it may take."""

    _text = short_form("run")


HookList = Annotated[tuple[Hook, ...], MANY]


class Hooks(Section):
    """Commands at four places of a release."""

    before_build: HookList = ()
    """Before the image is built."""
    before_traffic: HookList = ()
    """Before the candidate gets a share."""
    after_promotion: HookList = ()
    """After the candidate has all traffic and is proven."""
    after_rollback: HookList = ()
    """After the recorded split is back."""
