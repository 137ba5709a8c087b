"""What the service promises: requests, metrics, log lines, counters, commands; on the candidate's URL first, then on production's."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from relais.config.scalars import Duration, Flag, Json, Line, Pattern, Whole, Wrong, between, formed, nearest, placeholders, template
from relais.config.section import FACTS, FILLED, MANY, NAMES, TEXT_FORM, Patterns, Secrets, Section, TimeLimit, distinct, named, short_form

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
        return {"text": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _either(self) -> "Header":
        if (self.secret is None) == ("secret" in placeholders(self.text)):
            raise Wrong("text and secret do not fit", 'write a plain text, or {secret: BLOCK}, or {secret: BLOCK, text: "Bearer {secret}"}')
        return self


HeaderName = Annotated[str, formed(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "a header's name", "write letters, digits and -")]
JsonPath = Annotated[str, formed(r"\$\S*", "a JSON path", "begin it with $")]
Path = Annotated[str, formed(r"/[^\s#]*", "a path", "write it from the first /, without a host")]


class Endpoint(Section):
    """A method and a path: {get: /path}, or /path alone."""

    method: Literal["get", "post", "put", "patch", "delete", "head", "options"] = "get"
    """The method; in the short form, the key of the path."""
    path: Path
    """The path, with its query."""
    headers: Mapping[HeaderName, Header] = Field(default_factory=dict)
    """Headers that are sent."""

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
        found = handler(schema)
        either = handler.resolve_ref_schema(found)
        mapping = dict(either)
        mapping["properties"] = {**mapping["properties"], **dict.fromkeys(METHODS, mapping["properties"]["path"])}
        mapping["required"] = [key for key in mapping.get("required", []) if key != "path"]
        mapping["oneOf"] = [{"required": [key]} for key in ("path", *METHODS)]
        either.clear()
        either.update({"title": cls.__name__, "anyOf": [TEXT_FORM, mapping]})
        return found


class HttpRequest(Endpoint):
    """A request; json or body is what is sent."""

    json_: Json | None = Field(default=None, alias="json")
    """What is sent, as JSON."""
    body: str | None = None
    """What is sent, as text."""

    @field_validator("body")
    @classmethod
    def _one_content(cls, body: str | None, info: ValidationInfo) -> str | None:
        if body is not None and info.data.get("json_") is not None:
            raise Wrong("json is there too", "send one of them")
        return body


def _series(value: str) -> str:
    label = r'[A-Za-z_][A-Za-z0-9_]*="([^"\\\n]|\\.)*"'
    if not re.fullmatch(rf"[A-Za-z_:][A-Za-z0-9_:]*(\{{({label}(,\s*{label})*,?)?\}})?", value):
        raise Wrong(f"{value or 'nothing'} is not a metric's series", "write 'name' or 'name{label=\"value\"}'")
    return value


Series = Annotated[str, AfterValidator(_series)]
MetricName = Annotated[str, formed(r"[A-Za-z_:][A-Za-z0-9_:]*", "a metric's name", "write it as # HELP shows it")]
Comparison = Annotated[str, formed(r"(==|!=|>=|<=|>|<)\s*-?[0-9]+(\.[0-9]+)?", "a comparison", "write one such as '>= 1'")]


class MetricGroup(Section):
    """Metrics that the service must publish."""

    group: Line = "metrics"
    """The group's name, in documents."""
    names: Annotated[tuple[MetricName, ...], MANY, FILLED]
    """Their names, found by # HELP and # TYPE."""
    new: Flag = False
    """Not there in what serves now."""
    values: Mapping[Series, Comparison] = Field(default_factory=dict)
    """Comparisons of series, such as 'name{label="x"}': '>= 1'."""


class HttpCheck(Endpoint):
    """A request and what must come back; here json and body are what is expected, and send is what is sent."""

    json_: Json | None = Field(default=None, alias="json")
    """The answer's JSON holds at least this."""
    json_path: Mapping[JsonPath, Json] = {}
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
    metrics: Annotated[tuple[MetricGroup, ...], MANY] = ()
    """Metrics that the answer must hold."""
    after: HttpRequest | None = None
    """A request that must come first."""

    @property
    def request(self) -> HttpRequest:
        """The request itself, without what must come back."""
        sent = {"body": self.send} if isinstance(self.send, str) else {"json": self.send}
        return HttpRequest.model_validate({"method": self.method, "path": self.path, "headers": self.headers, **sent})


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
    headers: Mapping[HeaderName, Header] = Field(default_factory=dict)
    """Headers that are sent."""
    send: str | None = None
    """What is sent once it is open."""
    expect: Pattern | None = None
    """A text, or a /regular expression/, in the first answer."""
    within: Annotated[Duration, between("100ms", "10m")] = timedelta(seconds=10)
    """The longest that it may take."""

    _text = short_form("path")


class VersionCheck(Section):
    """Where the service reports its version."""

    get: Path
    """The path."""
    json_path: JsonPath = "$.version"
    """Where the version lies in the answer."""
    expect: Annotated[str, template(*NAMES, "tag", "revision")] = "{short_commit}"
    """What it must be."""


class Verify(Section):
    """The contract: checked on the candidate's tagged URL, at 0 %, and again in production."""

    http: Annotated[tuple[HttpCheck, ...], MANY] = ()
    """Requests and what must come back."""
    logs: LogExpectation = LogExpectation()
    """What the log must and must not hold."""
    openapi: Path | None = None
    """Where the service describes its routes: a route that is lost blocks."""
    version: VersionCheck | None = None
    """Where the service reports its version."""
    static: Annotated[tuple[Path, ...], MANY] = ()
    """Static files that must be there."""
    pages: Annotated[tuple[Path, ...], MANY] = ()
    """Pages whose assets must be there."""
    websockets: Annotated[tuple[WebSocketCheck, ...], MANY] = ()
    """WebSockets that must open."""


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
    secrets: Secrets = Field(default_factory=dict)
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

    http: Annotated[tuple[HttpCheck, ...], MANY] | None = None
    """Requests and what must come back; otherwise verify's."""
    on_failure: Literal["rollback", "hold"] = "rollback"
    """What to do when it fails."""
    counters: tuple[Counter, ...] = ()
    """Counters that requests must increment."""
    smoke: Annotated[tuple[Smoke, ...], MANY, distinct(named, "the smoke command")] = ()
    """Commands run against production."""
    watch: Annotated[Duration, between("0s", "720h")] = timedelta(hours=24)
    """How long the fresh release is looked after."""
    on_worse: Literal["notify", "rollback"] = "notify"
    """What to do when it gets worse while it is looked after."""
