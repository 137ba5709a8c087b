"""The release file as frozen values: one class a section, one line a field; a field that is not given has the default shown here."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from relais.config.changes import Changes
from relais.config.problems import Problem, bad_input, explain, path_text
from relais.config.scalars import (
    GI,
    MI,
    ByteSize,
    Commit,
    Cpus,
    Day,
    Duration,
    EnvName,
    Flag,
    Json,
    Line,
    Memory,
    Number,
    Pattern,
    Percent,
    Rate,
    RepoPath,
    Share,
    Size,
    Text,
    Whole,
    Wrong,
    Zone,
    between,
    duration,
    fill,
    formed,
    nearest,
    placeholders,
    template,
    unquoted,
)
from relais.errors import BadInput


class Section(BaseModel):
    """A mapping of the release file: frozen, and every key is known."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True, allow_inf_nan=False, hide_input_in_errors=True
    )
    short: ClassVar[JsonSchemaValue | None] = None
    """The short form in which the mapping may be written, for the JSON Schema."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        return {"anyOf": [cls.short, handler.resolve_ref_schema(found)], "title": cls.__name__} if cls.short else found


def _short(key: str) -> Any:
    """A plain text stands for a mapping with this key."""
    return model_validator(mode="before")(lambda data: {key: data} if isinstance(data, str) else data)


def _one(value: object) -> object:
    """One entry where a list may be."""
    return [value] if isinstance(value, (str, dict)) else value


def _distinct(key: Callable[[Any], str], what: str) -> AfterValidator:
    def check(items: tuple[Any, ...]) -> tuple[Any, ...]:
        seen: set[str] = set()
        for index, item in enumerate(items):
            if key(item) in seen:
                raise Wrong(f"{what} {key(item)} is there twice", "give each its own name", at=(index,))
            seen.add(key(item))
        return items

    return AfterValidator(check)


def _named(item: Any) -> str:
    return str(item.name)


TEXT_FORM: JsonSchemaValue = {"type": "string"}
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(_one)]
Secrets = Mapping[EnvName, Line]
TimeLimit = Annotated[Duration, between("1s", "24h")]

NAMES = ("timestamp", "date", "slug", "service", "commit", "short_commit")
"""The placeholders that are known when a release begins."""
FACTS = (*NAMES, "tag", "revision", "project", "region", "image", "digest", "url")
"""The placeholders that are known when a revision is there."""
SAMPLE = {
    "timestamp": "20251031-142530",
    "date": "2025-10-31",
    "slug": "slug",
    "service": "service",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "short_commit": "0123456",
}


# release


class Change(Section):
    """One entry of what changes, with its parts."""

    short = {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}]}

    title: Line
    """What changes."""
    items: tuple[Line, ...] = ()
    """The parts of it."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        if isinstance(data, str):
            return {"title": data}
        if isinstance(data, dict) and "title" not in data:
            if len(data) != 1:
                raise Wrong("is not one title with its items", "write `- title: [item, item]`, each title as its own entry")
            ((title, items),) = data.items()
            return {"title": title, "items": _one(items)}
        return data


class Release(Section):
    """What changes from one release to the next; each key is also a run parameter."""

    title: Line | None = None
    """What this release is, in one line; otherwise made from the commits."""
    slug: Annotated[str, formed(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", "a slug", "write up to 40 lower-case letters, digits and -")] | None = None
    """The release's short name, in file names and in the revision."""
    tag: Annotated[str, template(*NAMES)] = "deploy-{short_commit}-{timestamp}"
    """The image's tag, made once when the run starts."""
    by: Line | None = None
    """Who releases, as every document names them; otherwise the Prefect or Git user."""
    commit: Commit | None = None
    """The commit that the documents name beside the one that is built."""
    changes: tuple[Change, ...] = ()
    """What changes, nested, as in the report; otherwise made from the commits."""
    next: tuple[Line, ...] = ()
    """The next steps, as the documents name them."""
    skip: tuple[Line, ...] = ()
    """Checks to skip, by name: recorded as skipped, and by whom."""
    skipped_by: Line | None = None
    """Who skips them; otherwise who releases."""

    @field_validator("tag")
    @classmethod
    def _tag(cls, value: str) -> str:
        if not re.fullmatch(_TAG, _sample(value)):
            raise Wrong(f"{value} makes no image tag", "write up to 128 letters, digits, _, . and -, not beginning with . or -")
        return value


_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"


def _sample(text: str) -> str:
    for name in placeholders(text):
        text = text.replace(f"{{{name}}}", SAMPLE[name])
    return text


# preflight


class Reading(Section):
    """A document that whoever releases must have before their eyes."""

    short = TEXT_FORM
    path: RepoPath
    """The file, in the service's repository."""
    section: Line | None = None
    """The heading whose section is shown."""
    entries: Annotated[Whole, Field(ge=1, le=50)] | None = None
    """So many of the newest entries are shown."""

    _text = _short("path")


class Git(Section):
    """What must be true of the repository."""

    branch: Annotated[str, formed(r"[^\s~^:?*\[\\-][^\s~^:?*\[\\]*", "the name of a branch", "write it as git branch shows it")] = "main"
    """The branch that is released, and that the documents are committed to."""
    clean: Flag = True
    """No tracked file is changed."""
    pushed: Flag = True
    """Every remote that has the branch has the commit."""
    commits: tuple[Commit, ...] = ()
    """Commits that must be part of what is released."""


class Check(Section):
    """A command that must succeed before anything is built."""

    name: Line
    """The check's name, in documents, waivers and the run."""
    run: Text
    """The command, run in the service's repository."""
    passed: Annotated[Whole, Field(ge=0)] | None = None
    """At least so many tests pass."""
    expect: Patterns = ()
    """Texts, or /regular expressions/, in the output."""
    required: Flag = True
    """Whether a failure blocks the release; it is told either way."""
    known: RepoPath | None = None
    """A file that lists what was red before, one name a line: only new failures block."""
    timeout: TimeLimit = timedelta(minutes=15)
    """The longest it may take."""


class Waiver(Section):
    """A red check let through by name; printed in every document."""

    check: Line
    """The check's name."""
    because: Line
    """Why."""
    by: Line
    """Who answers for it."""
    until: Day | None = None
    """The last day on which it holds."""


class Preflight(Section):
    """What is looked at before anything changes."""

    read: Annotated[tuple[Reading, ...], BeforeValidator(_one)] = ()
    """Documents to read first: checked, and shown in the run."""
    git: Git = Git()
    """What must be true of the repository."""
    setup: tuple[Text, ...] = ()
    """Commands that make a fresh clone ready for the checks."""
    checks: Annotated[tuple[Check, ...], _distinct(_named, "the check")] = ()
    """Commands that must succeed, run side by side."""
    waivers: Annotated[tuple[Waiver, ...], _distinct(lambda waiver: str(waiver.check), "the waiver for")] = ()
    """Red checks let through by name."""

    @field_validator("waivers")
    @classmethod
    def _checks_exist(cls, waivers: tuple[Waiver, ...], info: ValidationInfo) -> tuple[Waiver, ...]:
        if "checks" in info.data:
            for index, waiver in enumerate(waivers):
                _known_check(waiver.check, info.data["checks"], (index, "check"))
        return waivers


def _known_check(name: str, checks: Iterable[Check], at: tuple[str | int, ...]) -> None:
    names = [check.name for check in checks]
    if name not in names:
        raise Wrong(f"there is no check named {name}", nearest(name, names) or "name a check of preflight.checks", at=at)


# build, push


class SizeLimits(Section):
    """How large the image may be."""

    warn: ByteSize | None = None
    """From here on it is said, with the largest layers."""
    fail: ByteSize | None = None
    """From here on the release is refused."""

    @field_validator("fail")
    @classmethod
    def _order(cls, fail: Size | None, info: ValidationInfo) -> Size | None:
        if fail and (warn := info.data.get("warn")) and warn > fail:
            raise Wrong(f"{fail} is less than warn, {warn}", "write a fail that is at least warn")
        return fail


class Build(Section):
    """How the image is built."""

    context: Annotated[str, AfterValidator(lambda value: _within(value))] = "."
    """The directory that the builder gets."""
    dockerfile: RepoPath = "Dockerfile"
    """The Dockerfile, from the repository's root."""
    platform: Annotated[str, formed(r"linux/amd64", "a platform of Cloud Run", "write linux/amd64")] = "linux/amd64"
    """The platform, verified on the result."""
    args: Mapping[EnvName, str] = {}
    """Build arguments."""
    target: Line | None = None
    """The stage to build; otherwise the last."""
    secrets: Secrets = {}
    """Build secrets: id, and the Prefect Secret block that holds it."""
    expect: Patterns = ()
    """Texts in the log, or in the layers that came from the cache."""
    size: SizeLimits = SizeLimits()
    """How large the image may be."""
    timeout: TimeLimit = timedelta(minutes=20)
    """The longest that the build may take."""


def _within(value: str) -> str:
    if value.startswith("/") or ".." in value.split("/") or not value:
        raise Wrong(f"{value or 'nothing'} is not a directory inside the repository", "write a relative path without ..")
    return value


class Push(Section):
    """How the image gets to the registry."""

    timeout: TimeLimit = timedelta(minutes=15)
    """The longest that the push may take."""


# deploy


class EnvRules(Section):
    """How environment variables are shown."""

    plain: tuple[EnvName, ...] = ()
    """Variables whose values are shown in plans and documents."""
    plain_secrets: Literal["warn", "forbid"] = "warn"
    """What to do about what looks like a secret in the env file."""


class SecretVersion(Section):
    """A version of a secret in Secret Manager."""

    short = TEXT_FORM
    secret: Annotated[str, formed(r"(projects/[a-z0-9:.-]+/secrets/)?[A-Za-z0-9_-]{1,255}", "a secret's name", "write SECRET:latest or SECRET:3")]
    """The secret's name, or projects/P/secrets/NAME."""
    version: Annotated[str, formed(r"latest|[1-9][0-9]{0,9}|[A-Za-z][A-Za-z0-9_-]{0,62}", "a version", "write latest, a number or an alias")] = "latest"
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
    port: Annotated[Whole, Field(ge=1, le=65535)] | None = None
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


def _label(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", value):
        raise Wrong(f"{value or 'nothing'} is not a label's name", "write up to 63 lower-case letters, digits, _ and -")
    return value


class Deploy(Section):
    """The revision; what is not given is kept as it serves."""

    revision_suffix: Annotated[str, template(*NAMES)] = "{short_commit}"
    """The revision is SERVICE-SUFFIX; a name that is taken by something else gets -2, -3."""
    ready_within: Annotated[Duration, between("10s", "1h")] = timedelta(minutes=10)
    """The longest until the revision is ready."""
    image: Annotated[str, formed(r"serving|(\S+@)?sha256:[0-9a-f]{64}", "an image by digest", "write sha256:..., NAME@sha256:..., or serving")] | None = None
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
    labels: Mapping[Annotated[str, AfterValidator(_label)], Annotated[str, formed(r"[a-z0-9_-]{0,63}", "a label", "write up to 63 of a-z, 0-9, _ and -")]] = {}
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
    cloudsql: tuple[Annotated[str, formed(r"[^\s:]+(:[^\s:]+)?:[^\s:]+:[^\s:]+", "an instance", "write PROJECT:REGION:INSTANCE")], ...] | None = None
    """Cloud SQL instances to connect to."""
    vpc: Vpc | None = None
    """How the revision reaches a private network."""
    volumes: Annotated[tuple[Volume, ...], _distinct(_named, "the volume")] | None = None
    """What is mounted."""
    command: Annotated[tuple[str, ...], BeforeValidator(_one)] | None = None
    """The command, in place of the image's entry point."""
    args: Annotated[tuple[str, ...], BeforeValidator(_one)] | None = None
    """The command's arguments."""
    port: Annotated[Whole, Field(ge=1, le=65535)] | None = None
    """The port that the container listens on."""
    scaling: Scaling | None = None
    """Service-level scaling."""
    allow: tuple[Annotated[str, AfterValidator(_allowance)], ...] = ()
    """What may be lost, by name: lower memory|cpu|timeout|max_instances, remove env|secret NAME, change access|service_account|ingress, remove route PATH."""
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


# hooks


class Hook(Section):
    """A command with the release's facts in its environment."""

    short = TEXT_FORM
    run: Text
    """The command, run in the service's repository."""
    name: Line | None = None
    """Its name in the run; otherwise the command."""
    secrets: Secrets = {}
    """Secrets that it needs: variable, and the Prefect Secret block that holds it."""
    timeout: TimeLimit = timedelta(minutes=5)
    """The longest it may take."""

    _text = _short("run")


HookList = Annotated[tuple[Hook, ...], BeforeValidator(_one)]


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


# verify


METHODS = ("get", "post", "put", "patch", "delete", "head", "options")


class Header(Section):
    """The value of a request header."""

    short = TEXT_FORM
    text: Annotated[str, template("secret", command=True)] = "{secret}"
    """The value; {secret} stands for the secret."""
    secret: Line | None = None
    """The Prefect Secret block that holds the secret."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        return {"text": data.replace("{secret}", "{{secret}}")} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _either(self) -> "Header":
        if (self.secret is None) == ("secret" in placeholders(self.text)):
            raise Wrong("text and secret do not fit", 'write a plain text, or {secret: BLOCK}, or {secret: BLOCK, text: "Bearer {secret}"}')
        return self


Path = Annotated[str, formed(r"/[^\s#]*", "a path", "write it from the first /, without a host")]


class HttpRequest(Section):
    """A request: {get: /path}, or /path alone; json or body is what is sent."""

    short = TEXT_FORM
    method: Literal["get", "post", "put", "patch", "delete", "head", "options"] = "get"
    """The method; in the short form, the key of the path."""
    path: Path
    """The path, with its query."""
    headers: Mapping[Annotated[str, formed(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "a header's name", "write letters, digits and -")], Header] = {}
    """Headers that are sent."""
    json_: Json | None = Field(None, alias="json")
    """What is sent, as JSON."""
    body: str | None = None
    """What is sent, as text."""

    @property
    def name(self) -> str:
        """The request as people name it: GET /path."""
        return f"{self.method.upper()} {self.path}"

    @model_validator(mode="before")
    @classmethod
    def _method_as_key(cls, data: object) -> object:
        if isinstance(data, str):
            return {"path": data}
        if not isinstance(data, dict) or "path" in data:
            return data
        given = [key for key in data if key in METHODS]
        if len(given) == 1:
            return {"method": given[0], "path": data[given[0]], **{key: value for key, value in data.items() if key != given[0]}}
        if given:
            raise Wrong(f"has two methods, {' and '.join(given)}", "write one request an entry")
        known = {field.alias or name for name, field in cls.model_fields.items()}
        odd = next((key for key in data if key not in known), None)
        raise Wrong(f"{odd} is not a method" if odd else "names no request", nearest(odd, METHODS) if odd else "write `get: /path`")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler.resolve_ref_schema(handler(schema))
        path = found["properties"]["path"]
        found["properties"] |= {method: path for method in METHODS}
        found["required"] = [key for key in found.get("required", []) if key != "path"]
        found["oneOf"] = [{"required": [key]} for key in ("path", *METHODS)]
        return {"anyOf": [TEXT_FORM, found], "title": cls.__name__}


class MetricGroup(Section):
    """Metrics that the service must publish."""

    group: Line = "metrics"
    """The group's name, in documents."""
    names: tuple[Annotated[str, formed(r"[A-Za-z_:][A-Za-z0-9_:]*", "a metric's name", "write it as # HELP shows it")], ...] = Field(min_length=1)
    """Their names, found by # HELP and # TYPE."""
    new: Flag = False
    """Not there in what serves now."""
    values: Mapping[
        Annotated[str, AfterValidator(lambda value: _series(value))],
        Annotated[str, formed(r"(==|!=|>=|<=|>|<)\s*-?[0-9]+(\.[0-9]+)?", "a comparison", "write one such as '>= 1'")],
    ] = {}
    """Comparisons of series, such as 'name{label="x"}': '>= 1'."""


def _series(value: str) -> str:
    label = r'[A-Za-z_][A-Za-z0-9_]*="([^"\\\n]|\\.)*"'
    if not re.fullmatch(rf"[A-Za-z_:][A-Za-z0-9_:]*(\{{({label}(,\s*{label})*,?)?\}})?", value):
        raise Wrong(f"{value or 'nothing'} is not a metric's series", "write 'name' or 'name{label=\"value\"}'")
    return value


Series = Annotated[str, AfterValidator(_series)]


class HttpCheck(HttpRequest):
    """A request and what must come back; here json and body are what is expected, and send is what is sent."""

    json_: Json | None = Field(None, alias="json")
    """The answer's JSON holds at least this."""
    json_path: Mapping[Annotated[str, formed(r"\$\S*", "a JSON path", "begin it with $")], Json] = {}
    """What lies at JSON paths of the answer, such as $.items[0].name."""
    body: Pattern | None = None
    """A text, or a /regular expression/, in the answer."""
    send: Json | None = None
    """What is sent: a text as it is, anything else as JSON."""
    status: Annotated[Whole, Field(ge=100, le=599)] = 200
    """The status that must come back."""
    content_type: Line | None = None
    """What the answer's content type begins with."""
    within: Annotated[Duration, between("100ms", "10m")] = timedelta(seconds=10)
    """The longest that the answer may take."""
    metrics: Annotated[tuple[MetricGroup, ...], BeforeValidator(_one)] = ()
    """Metrics that the answer must hold."""
    after: HttpRequest | None = None
    """A request that must come first."""


FORBIDDEN = (
    "Traceback (most recent call last)",
    "ImportError",
    "ModuleNotFoundError",
    "sqlite3.OperationalError",
    "Duplicated timeseries",
    "Memory limit of",
    "probe failed",
)


class LogExpectation(Section):
    """What the revision's log must and must not hold."""

    expect: Patterns = ()
    """Texts, or /regular expressions/, that must appear."""
    forbid: Patterns = FORBIDDEN
    """Texts, or /regular expressions/, that must not."""
    within: Annotated[Duration, between("1s", "1h")] = timedelta(seconds=60)
    """The longest until all that is expected has appeared."""


class WebSocketCheck(Section):
    """A WebSocket handshake, and one exchange."""

    short = TEXT_FORM
    path: Path
    """The path."""
    headers: Mapping[str, Header] = {}
    """Headers that are sent."""
    send: str | None = None
    """What is sent once it is open."""
    expect: Pattern | None = None
    """A text, or a /regular expression/, in the first answer."""
    within: Annotated[Duration, between("100ms", "10m")] = timedelta(seconds=10)
    """The longest that it may take."""

    _text = _short("path")


class VersionCheck(Section):
    """Where the service reports its version."""

    get: Path
    """The path."""
    json_path: Annotated[str, formed(r"\$\S*", "a JSON path", "begin it with $")] = "$.version"
    """Where the version lies in the answer."""
    expect: Annotated[str, template(*NAMES, "tag", "revision")] = "{short_commit}"
    """What it must be."""


class Verify(Section):
    """The contract: checked on the image first, then on the candidate's tagged URL, at 0 %."""

    http: Annotated[tuple[HttpCheck, ...], BeforeValidator(_one)] = ()
    """Requests and what must come back."""
    logs: LogExpectation = LogExpectation()
    """What the log must and must not hold."""
    openapi: Path | None = None
    """Where the service describes its routes: a route that is lost blocks."""
    version: VersionCheck | None = None
    """Where the service reports its version."""
    static: Annotated[tuple[Path, ...], BeforeValidator(_one)] = ()
    """Static files that must be there."""
    pages: Annotated[tuple[Path, ...], BeforeValidator(_one)] = ()
    """Pages whose assets must be there."""
    websockets: Annotated[tuple[WebSocketCheck, ...], BeforeValidator(_one)] = ()
    """WebSockets that must open."""


# canary


class JudgeSettings(Section):
    """The judge's limits."""

    alpha: Annotated[Number, Field(gt=0, lt=0.5)] = 0.01
    """The chance of a false rollback, however often one looks."""
    margin: Annotated[Number, Field(ge=1, le=100)] = 1.25
    """The odds ratio that is still no harm."""
    slo: Share = 0.01
    """The error rate that the candidate itself must stay below."""
    ratio: Annotated[Number, Field(gt=1, le=100)] = 3.0
    """The odds ratio that promotion must rule out."""
    beta: Annotated[Number, Field(gt=0, lt=0.5)] = 0.1
    """The chance of promoting what is worse than that."""


class Noise(Section):
    """Requests that the judge leaves out, and counts."""

    status: Annotated[Whole, Field(ge=100, le=599)] | None = None
    """By status."""
    path: Pattern | None = None
    """By a text, or a /regular expression/, in the path."""
    agent: Pattern | None = None
    """By a text, or a /regular expression/, in the user agent."""

    @model_validator(mode="after")
    def _something(self) -> "Noise":
        if self.status is None and self.path is None and self.agent is None:
            raise Wrong("names no requests", "write status, path or agent")
        return self


class TrafficProbes(Section):
    """Requests sent alike to both revisions' tagged URLs."""

    rate: Rate = 1.0
    """How often, to each revision."""
    http: Annotated[tuple[HttpRequest, ...], BeforeValidator(_one)] = Field(min_length=1)
    """What is asked, in turn."""


def _approval(value: object) -> timedelta | None:
    value = unquoted(value)
    if value is None or value is False:
        return None
    return timedelta(hours=24) if value is True else duration(value)


class Canary(Section):
    """The candidate's way to 100 %."""

    steps: Annotated[tuple[Percent, ...], BeforeValidator(lambda value: [value] if isinstance(value, (str, int)) else value)] = Field((10,), min_length=1)
    """The candidate's shares on the way, in percent, rising."""
    bake: Annotated[Duration, between("0s", "24h")] = timedelta(minutes=5)
    """The least time at a step."""
    deadline: Annotated[Duration, between("0s", "72h")] = Field(default_factory=lambda data: 2 * data["bake"])
    """The most time at a step; otherwise twice the bake."""
    early: Flag = False
    """Go on as soon as proven, without waiting for the bake."""
    on_deadline: Literal["hold", "promote", "rollback"] = "hold"
    """What to do at the deadline, where nothing is worse and nothing is proven."""
    blind: Annotated[Duration, between("30s", "24h")] = timedelta(minutes=5)
    """The longest time with a share and without evidence."""
    on_blind: Literal["restore", "hold"] = "restore"
    """What to do then."""
    on_orphan: Literal["restore", "continue"] = "restore"
    """What the watch does with a rollout whose driver died."""
    approve: Annotated[Duration | None, BeforeValidator(_approval)] = None
    """A person's word before 100 %: true (24 hours), or a duration as its time limit."""
    finish: Literal["as-before", "latest", "pinned"] = "as-before"
    """What traffic points to after 100 %."""
    evidence: Literal["auto", "logs", "monitoring"] = "auto"
    """Where the evidence comes from."""
    judge: JudgeSettings = JudgeSettings()
    """The judge's limits."""
    noise: Annotated[tuple[Noise, ...], BeforeValidator(_one)] = ()
    """Requests that the judge leaves out."""
    probes: TrafficProbes | None = None
    """Requests sent alike to both revisions."""

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        for index, (before, after) in enumerate(zip(steps, steps[1:], strict=False), 1):
            if after <= before:
                raise Wrong(f"{after} does not rise from {before}", "write each step higher than the one before", at=(index,))
        return steps

    @field_validator("deadline")
    @classmethod
    def _at_least_bake(cls, deadline: timedelta, info: ValidationInfo) -> timedelta:
        if (bake := info.data.get("bake")) and deadline < bake:
            raise Wrong("is shorter than the bake", "raise deadline, or lower bake")
        return deadline


# validate


class Counter(Section):
    """A counter that a request must increment."""

    when: HttpRequest
    """The request that is sent."""
    increments: Series
    """The series that must grow, with its labels."""
    metrics: Path = "/api/metrics"
    """Where the service publishes its metrics."""
    within: Annotated[Duration, between("1s", "1h")] = timedelta(seconds=60)
    """The longest until it has."""
    required: Flag = True
    """Whether a failure counts against the release; it is told either way."""


class Smoke(Section):
    """A command run against production."""

    name: Line = "smoke"
    """Its name, in documents and the run."""
    run: Annotated[str, template(*FACTS, command=True)]
    """The command; {url} is the production URL."""
    secrets: Secrets = {}
    """Secrets that it needs: variable, and the Prefect Secret block that holds it; without them it is skipped."""
    expect: Patterns = ()
    """Texts, or /regular expressions/, in the output."""
    passed: Annotated[Whole, Field(ge=0)] | None = None
    """At least so many tests pass."""
    required: Flag = True
    """Whether a failure counts against the release; it is told either way."""
    timeout: TimeLimit = timedelta(minutes=10)
    """The longest it may take."""


class Validation(Section):
    """What is checked on the production URL, at 100 %."""

    http: Annotated[tuple[HttpCheck, ...], BeforeValidator(_one)] | None = None
    """Requests and what must come back; otherwise verify's."""
    on_failure: Literal["rollback", "hold"] = "rollback"
    """What to do when it fails."""
    counters: tuple[Counter, ...] = ()
    """Counters that requests must increment."""
    smoke: Annotated[tuple[Smoke, ...], BeforeValidator(_one), _distinct(_named, "the smoke command")] = ()
    """Commands run against production."""
    watch: Annotated[Duration, between("0s", "720h")] = timedelta(hours=24)
    """How long the fresh release is looked after."""
    on_worse: Literal["notify", "rollback"] = "notify"
    """What to do when it gets worse while it is looked after."""


# documents


class DocumentCommit(Section):
    """How the documents are committed."""

    author: Annotated[str, formed(r"[^<>\n]+ <[^<>\s]+>", "an author", "write Name <address>")] | None = None
    """Who the commit is by; otherwise Git's user."""
    message: Annotated[str, template(*FACTS)] = "Release {revision}: documents"
    """The commit's message."""


def _committed(value: object) -> object:
    value = unquoted(value)
    return None if value is False else {} if value is True else value


class SyncPage(Section):
    """A named section of a page that is kept up to date."""

    path: RepoPath
    """The page."""
    section: Line
    """The heading of the section."""


class Documents(Section):
    """What is written into the service's repository; nothing that is not named here."""

    language: Literal["en", "fr"] = "en"
    """The documents' language."""
    timezone: Zone = "UTC"
    """The one clock for tag, file names and texts."""
    report: Annotated[RepoPath, template(*FACTS[:-3])] | None = None
    """The deployment report's file, one a release."""
    index: RepoPath | None = None
    """The list of releases, newest first."""
    sync: SyncPage | None = None
    """The page on which people tell each other where they are."""
    journal: RepoPath | None = None
    """The journal that gets an entry."""
    commit: Annotated[DocumentCommit | None, BeforeValidator(_committed)] = DocumentCommit()
    """Whether they are committed: true, false, or {author, message}."""
    push: Annotated[Literal["auto", True, False], BeforeValidator(unquoted)] = "auto"
    """Whether that commit is pushed; auto: when preflight.git.pushed is demanded."""


class Escalate(Section):
    """Who is told when a release is blocked."""

    contact: Line | None = None
    """Whom the journal and the notification name."""
    notify: tuple[Line, ...] = ()
    """Names of Prefect notification blocks."""


class ReleaseFile(Section):
    """How one service gets from a commit to production."""

    service: Annotated[str, formed(r"[a-z]([a-z0-9-]{0,47}[a-z0-9])?", "a service's name", "write up to 49 lower-case letters, digits and -")]
    """The Cloud Run service."""
    project: Annotated[str, formed(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project's id", "write the id (6 to 30 of a-z, 0-9, -), not its name")]
    """The Google Cloud project's id."""
    region: Annotated[str, formed(r"[a-z]+-[a-z]+[0-9]+", "a region", "write one such as europe-west1")]
    """The Cloud Run region."""
    repository: Annotated[str, formed(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "a repository's id", "write the Artifact Registry id alone, such as app")]
    """The Artifact Registry repository; the image is REGISTRY_URI/SERVICE."""
    release: Release = Release()
    """What changes from one release to the next."""
    preflight: Preflight = Preflight()
    """What is looked at before anything changes."""
    build: Annotated[Build | None, BeforeValidator(lambda value: None if value in ("false", False) else value)] = Build()
    """How the image is built; false releases an image that exists."""
    push: Push = Push()
    """How the image gets to the registry."""
    deploy: Deploy = Deploy()
    """The revision."""
    hooks: Hooks = Hooks()
    """Commands at four places of a release."""
    verify: Verify = Verify()
    """The contract that is checked at 0 %."""
    canary: Canary | None = None
    """The way to 100 %; without it, at once."""
    validation: Validation = Field(Validation(), alias="validate")
    """What is checked on the production URL."""
    documents: Documents = Documents()
    """What is written into the service's repository."""
    escalate: Escalate = Escalate()
    """Who is told when a release is blocked."""

    @field_validator("preflight")
    @classmethod
    def _skips_exist(cls, preflight: Preflight, info: ValidationInfo) -> Preflight:
        if release := info.data.get("release"):
            for name in release.skip:
                _known_check(name, preflight.checks, ())
        return preflight

    @field_validator("deploy")
    @classmethod
    def _deploy_fits(cls, deploy: Deploy, info: ValidationInfo) -> Deploy:
        if "service" in info.data:
            _revision(info.data["service"], _sample(deploy.revision_suffix), shown=deploy.revision_suffix)
        if deploy.image and info.data.get("build"):
            raise Wrong("needs build: false", "write build: false, or remove image", at=("image",))
        return deploy

    def with_changes(self, changes: Changes) -> "ReleaseFile":
        """The file with what one run changes over it."""
        given = changes.model_dump(exclude_none=True)
        data = self.model_dump(mode="json")
        data["release"] |= {key: given[key] for key in ("title", "slug", "tag", "by", "next", "commit", "skip", "skipped_by") if key in given}
        if "changes" in given:
            data["release"]["changes"] = _nested(given["changes"])
        if "commits" in given:
            data["preflight"]["git"]["commits"] = given["commits"]
        if "watch" in given:
            data["validate"]["watch"] = given["watch"]
        for key in ("bake", "deadline"):
            if key in given and self.canary is None:
                raise BadInput(f"{key}: this release has no canary", where="run parameters", remedy=f"leave {key} out, or write canary in the file")
            if key in given:
                data["canary"][key] = given[key]
        try:
            return ReleaseFile.model_validate(data)
        except ValidationError as error:
            problems = [Problem("run parameters", _parameter(keys), what, remedy) for keys, what, remedy in explain(error, ReleaseFile)]
            raise bad_input(problems, "run parameters") from None

    def image_tag(self, facts: Mapping[str, str]) -> str:
        """The image's tag, from the facts that NAMES lists."""
        tag = fill(self.release.tag, facts)
        if not re.fullmatch(_TAG, tag):
            raise BadInput(f"{tag} is no image tag", where="release.tag", remedy="write up to 128 letters, digits, _, . and -")
        return tag

    def revision(self, facts: Mapping[str, str]) -> str:
        """The revision's name, from the facts that NAMES lists."""
        try:
            return _revision(self.service, fill(self.deploy.revision_suffix, facts))
        except Wrong as wrong:
            raise BadInput(wrong.what, where="deploy.revision_suffix", remedy=wrong.remedy) from None


def _nested(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Entries, and their parts: the lines that begin with '- '."""
    entries: list[dict[str, Any]] = []
    for line in lines:
        if line.startswith("- ") and entries:
            entries[-1]["items"].append(line.removeprefix("- "))
        else:
            entries.append({"title": line.removeprefix("- "), "items": []})
    return entries


_PARAMETERS = {"preflight": "commits", "validate": "watch"}


def _parameter(keys: tuple[str | int, ...]) -> str:
    """The run parameter that a key path of the file stands for."""
    if keys == ("preflight",):
        return "skip"
    if keys[0] == "deploy":
        return "slug"
    return _PARAMETERS.get(str(keys[0])) or path_text(keys[1:])


def _revision(service: str, suffix: str, *, shown: str = "") -> str:
    name = f"{service}-{suffix}"
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", suffix):
        raise Wrong(f"{shown or suffix} makes no revision name", "write lower-case letters, digits and -", at=("revision_suffix",))
    if len(name) > 63:
        raise Wrong(f"{name} is longer than 63 characters", f"shorten it by {len(name) - 63}", at=("revision_suffix",))
    return name
