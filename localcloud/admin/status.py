"""What the local cloud looks like now: as a page for people at `/`, and as JSON for programs at `/state`."""

import asyncio
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web
from google.cloud import run_v2
from google.longrunning import operations_pb2

from localcloud import clock, form
from localcloud.admin.control import Control
from localcloud.admin.denials import Denials
from localcloud.admin.endpoint import Admin, answer
from localcloud.admin.faults import Faults
from localcloud.instances.engine import Engine
from localcloud.instances.fleet import Fleet
from localcloud.logs.logstore import LogStore
from localcloud.naming import short
from localcloud.run import targets
from localcloud.run.targets import Target
from localcloud.state import State, StoredService
from localcloud.wire import Refusal

_operations: Any = operations_pb2
_SERVICES, _REVISIONS, _REQUESTS, _FAILURES = 25, 6, 20, 5
_ERROR, _LATELY_S = 500, 600  # the severity of entries of 5xx, and how long one is told as failing
_LOOK_S = 2.0  # how long the Docker Engine may take to name the instances
_PAGE = Path(__file__).parent / "templates" / "status.html.j2"


@dataclass(frozen=True)
class RevisionNow:
    """A revision: pending, ready or failed, its image, and how many of its instances run."""

    name: str
    phase: str
    image: str
    instances: int


@dataclass(frozen=True)
class ServiceNow:
    """A service: who serves, who should, and its newest revisions."""

    name: str
    place: str
    uri: str
    condition: str
    message: str
    labels: dict[str, str]
    served: tuple[Target, ...]
    wanted: tuple[Target, ...]
    revisions: tuple[RevisionNow, ...]
    older: int


@dataclass(frozen=True)
class RequestNow:
    """A request that was answered."""

    at: str
    method: str
    url: str
    status: int
    milliseconds: int
    revision: str


@dataclass(frozen=True)
class Now:
    """All that is told. `services` are those of one page; `trouble` says what could not be found out."""

    clone: str
    count: int
    matching: int
    page: int
    pages: int
    services: tuple[ServiceNow, ...]
    instances: int
    requests: tuple[RequestNow, ...]
    failures: tuple[RequestNow, ...]  # the latest that were answered with 5xx, of the last ten minutes
    failed: tuple[str, ...]  # services whose newest revision failed
    operations: tuple[str, ...]
    faults: tuple[dict[str, Any], ...]
    denials: tuple[dict[str, Any], ...]
    behaviour: dict[str, Any]
    trouble: str


class Status:
    """Reads the state and shows it; it changes nothing."""

    def __init__(
        self, admin: Admin, state: State, store: LogStore, engine: Engine, fleet: Fleet, faults: Faults, denials: Denials, control: Control
    ) -> None:
        self._state, self._store, self._engine, self._fleet = state, store, engine, fleet
        self._faults, self._denials, self._control = faults, denials, control
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(_PAGE.read_text(encoding="utf-8"))
        admin.add("GET", "/", self._page)
        admin.add("GET", "/state", self._json)

    async def _page(self, request: web.Request) -> web.Response:
        words, nonce = request.query.get("q", "")[:100], secrets.token_urlsafe(12)
        text = self._template.render(now=await self._now(words, request.query.get("page", "")), q=words, nonce=nonce)
        response = web.Response(text=text, content_type="text/html", charset="utf-8")
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        return response

    async def _json(self, request: web.Request) -> web.Response:
        return answer(form.plain(await self._now(request.query.get("q", "")[:100], request.query.get("page", ""))))

    async def _now(self, words: str, page: str) -> Now:
        names = [name for (name,) in self._state.connection.execute("SELECT name FROM services ORDER BY name")]
        matching = [name for name in names if words.lower() in short(name)]
        pages = max(1, -(-len(matching) // _SERVICES))
        number = min(max(int(page) if page.isascii() and page.isdigit() and len(page) < 6 else 1, 1), pages)
        chosen = [self._state.service(name) for name in matching[(number - 1) * _SERVICES : number * _SERVICES]]
        instances = {each.blueprint.key: each.active + each.idle for each in self._fleet.census()}
        trouble = await self._trouble()
        return Now(
            clone=self._engine.clone,
            count=len(names),
            matching=len(matching),
            page=number,
            pages=pages,
            services=tuple(self._service(each, instances) for each in chosen if each is not None),
            instances=sum(instances.values()),
            requests=await self._requests(_REQUESTS),
            failures=await self._requests(_FAILURES, severity=_ERROR, since=clock.time_ns() - _LATELY_S * 1_000_000_000),
            failed=self._failed(),
            operations=tuple(_operation(body) for _, body, _ in self._state.unfinished_operations()[:_REQUESTS]),
            faults=tuple(each.told() for each in self._faults.all() if not each.spent),
            denials=tuple({"id": id, **form.plain(each)} for id, each in self._denials.all().items()),
            behaviour=_changed(form.plain(self._control.behaviour), form.plain(self._control.start)),
            trouble=trouble,
        )

    async def _trouble(self) -> str:
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._engine.check()
        except (Refusal, TimeoutError) as error:
            return f"No instance can start: {str(error) or 'the Docker Engine takes long to answer'}."
        return ""

    def _failed(self) -> tuple[str, ...]:
        """The services whose newest revision failed."""
        newest = "SELECT service, phase, max(number) FROM revisions GROUP BY service"
        rows = self._state.connection.execute(f"SELECT service FROM ({newest}) WHERE phase = 'failed' ORDER BY service")
        return tuple(short(name) for (name,) in rows)

    def _service(self, stored: StoredService, instances: dict[str, int]) -> ServiceNow:
        service = run_v2.Service.deserialize(stored.body)
        rows = self._state.connection.execute(
            "SELECT name, phase, image FROM revisions WHERE service = ? ORDER BY number DESC LIMIT ?", (stored.name, _REVISIONS)
        ).fetchall()
        count = self._state.connection.execute("SELECT count(*) FROM revisions WHERE service = ?", (stored.name,)).fetchone()[0]
        parts = stored.name.split("/")
        return ServiceNow(
            name=parts[5],
            place=f"{parts[1]} / {parts[3]}",
            uri=service.uri,
            condition="reconciling" if service.reconciling else _condition(service),
            message=service.terminal_condition.message,
            labels=dict(service.labels),
            served=tuple(targets.kept(stored.routes)),
            wanted=tuple(targets.wanted(service)),
            revisions=tuple(RevisionNow(short(name), phase, _image(image), instances.get(name, 0)) for name, phase, image in rows),
            older=count - len(rows),
        )

    async def _requests(self, most: int, *, severity: int = 0, since: int = 0) -> tuple[RequestNow, ...]:
        try:
            found = await asyncio.to_thread(self._store.requests, most, severity=severity, since=since)
        except sqlite3.Error:
            return ()
        return tuple(_request(each) for each in found)


def _changed(now: dict[str, Any], usual: dict[str, Any], within: str = "") -> dict[str, Any]:
    """What of a behaviour was switched, by names such as `quotas.run_reads`."""
    found: dict[str, Any] = {}
    for key, value in now.items():
        if isinstance(value, dict):
            found |= _changed(value, usual[key], f"{within}{key}.")
        elif value != usual[key]:
            found[f"{within}{key}"] = value
    return found


def _condition(service: run_v2.Service) -> str:
    failed = service.terminal_condition.state == run_v2.Condition.State.CONDITION_FAILED
    return "failed" if failed else "ready"


def _image(reference: str) -> str:
    """A reference by digest, as short as people can still tell it from another."""
    name, _, digest = reference.partition("@sha256:")
    return f"{name.rsplit('/', 1)[-1]}@{digest[:12]}" if digest else name


def _operation(body: bytes) -> str:
    operation = _operations.Operation.FromString(body)
    service = run_v2.Service()
    if operation.metadata.Is(run_v2.Service.pb(service).DESCRIPTOR):
        operation.metadata.Unpack(run_v2.Service.pb(service))
    return short(service.name) or operation.name


def _request(entry: Any) -> RequestNow:
    http, took = entry.http_request, entry.http_request.latency
    return RequestNow(
        at=entry.timestamp.ToDatetime().strftime("%H:%M:%S"),
        method=http.request_method,
        url=http.request_url,
        status=http.status,
        milliseconds=round(took.seconds * 1000 + took.nanos / 1e6),
        revision=entry.resource.labels.get("revision_name", ""),
    )
