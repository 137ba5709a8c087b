"""Whole states as one JSON file: services, their policies, revisions and log entries, taken in without a container, and given out.

    {"services": [...], "revisions": [...], "policies": {"projects/P/locations/R/services/S": {...}}, "entries": [...]}

Services, revisions, policies and entries are as the APIs give them in JSON (Cloud Run v2, IAM v1, Logging v2). The file is taken in as
a whole or not at all; a service that exists already is refused, and so is a revision that was never tried: nobody knows whether it serves.
"""

import asyncio
import json
import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from google.cloud import run_v2
from google.iam.v1 import policy_pb2
from google.protobuf import json_format

from localcloud import clock
from localcloud.admin.endpoint import Answer, answer
from localcloud.form import Unusable
from localcloud.logs import entries
from localcloud.logs.logstore import LogStore
from localcloud.naming import ServiceName, etag, short
from localcloud.run import changes, conditions, defaults, targets, validation
from localcloud.run.conditions import State as Condition
from localcloud.run.conditions import condition, put
from localcloud.run.violations import Malformed
from localcloud.state import Phase, State, StoredRevision, StoredService
from localcloud.wire import Refusal, to_pb

log = logging.getLogger(__name__)
_policy: Any = policy_pb2
_json_format: Any = json_format
_UNTRIED = (Condition.CONDITION_PENDING, Condition.CONDITION_RECONCILING)
_KEYS = ("services", "revisions", "policies", "entries")


@dataclass(frozen=True)
class Snapshot:
    """A file that was read and found good."""

    services: tuple[StoredService, ...]
    revisions: tuple[StoredRevision, ...]
    entries: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{len(self.services)} services, {len(self.revisions)} revisions, {len(self.entries)} log entries"


def read(text: str | bytes) -> Snapshot:
    """Read a file; the first thing that is wrong in it is Unusable."""
    try:
        given = json.loads(text)
    except UnicodeDecodeError as error:
        raise Unusable(f"It is not UTF-8 (byte {error.start}).", "the file", "Write it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise Unusable(f"It is not JSON: {error.msg}.", f"line {error.lineno}, column {error.colno}", "Mend it there.") from None
    except (ValueError, RecursionError) as error:
        raise Unusable(f"It cannot be read: {error}.", "the file", "Write it as the API gives it.") from None
    if not isinstance(given, dict):
        raise Unusable("It is not a JSON object.", "the file", f"Write an object with {', '.join(_KEYS)}.")
    for key, value in given.items():
        if key not in _KEYS:
            raise Unusable(f"There is no '{key[:60]}' here.", "the file", f"It may have {', '.join(_KEYS)}.")
        if not isinstance(value, dict if key == "policies" else list):
            raise Unusable("It is not of this kind.", key, "Write an object by service name." if key == "policies" else "Write a list.")
    services = _services(given.get("services", []))
    revisions = _revisions(given.get("revisions", []), services)
    policies = _policies(given.get("policies", {}), services)
    made = []
    for index, (name, service) in enumerate(services.items()):
        with _at(f"services[{index}] ({name})"):
            made.append(_stored(ServiceName.parse(name), service, revisions.get(name, []), policies.get(name, b"")))
    logged = [_entry(each, f"entries[{index}]") for index, each in enumerate(given.get("entries", []))]
    return Snapshot(tuple(made), tuple(each for found in revisions.values() for each in found), tuple(logged))


def write(snapshot: Snapshot, state: State, store: LogStore) -> None:
    """Take a snapshot into the state and the log, or nothing of it; Unusable if a service of it exists already."""
    with state.transaction():
        for service in snapshot.services:
            if state.service(service.name) is not None:
                raise Unusable(f"The service {service.name} exists already.", "services", "Delete it, or take it out of the file.")
            state.put_service(service)
        for revision in snapshot.revisions:
            state.put_revision(revision)
        bodies = [(each.SerializeToString(),) for each in snapshot.entries]
        state.connection.executemany("INSERT INTO arriving (body) VALUES (?)", bodies)
    finish(state, store)


def finish(state: State, store: LogStore) -> None:
    """Hand the log the entries that were taken in: they are in another file, and the process may have ended before this was done.

    Entries that the log has already are dropped there: they keep their insertId. While its disk refuses them they wait for the next start.
    """
    arriving = [body for (body,) in state.connection.execute("SELECT body FROM arriving")]
    if arriving:
        store.write([entries.LogEntry.FromString(body) for body in arriving])
        try:
            store.flush()
        except sqlite3.Error as error:
            log.warning("the log cannot take the entries of an imported state (%s): the next start tries again", error)
            return
        state.connection.execute("DELETE FROM arriving")


def route(state: State, store: LogStore, take_up: Callable[[Iterable[str]], None]) -> Answer:
    """What the admin endpoint does with a file that is sent to it; the services that it brought are served at once."""

    async def take_in(request: web.Request) -> web.Response:
        snapshot = await asyncio.to_thread(read, await request.read())
        write(snapshot, state, store)
        take_up(each.name for each in snapshot.services)
        return answer({"imported": str(snapshot)}, status=201)

    return take_in


def export(state: State, store: LogStore) -> str:
    """Give the whole state as such a file, with the newest 1000 log entries of each project (all that is kept is in the log).

    Unusable while a revision waits to be tried: import would not take it.
    """
    for each in state.pending_revisions():
        raise Unusable("It is still being deployed.", each.name, "Start the local cloud, and export once it is ready or has failed.")
    services = state.services()
    logged: list[Any] = []
    for project in sorted({f"projects/{ServiceName.parse(each.name).project}" for each in services}):
        logged += store.list([project], order_by="timestamp desc", page_size=1000).entries
    given = {
        "services": [_json(run_v2.Service.deserialize(each.body)) for each in services],
        "revisions": [_json(run_v2.Revision.deserialize(each.body)) for each in reversed(state.all_revisions())],
        "policies": {each.name: _json(_policy.Policy.FromString(each.policy)) for each in services if each.policy},
        "entries": [_json(each) for each in logged],
    }
    return json.dumps(given, indent=1, ensure_ascii=False)


def _json(message: Any) -> Any:
    return _json_format.MessageToDict(to_pb(message))


# one resource


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say of what is wrong inside, where it is."""
    try:
        yield
    except json_format.ParseError as error:
        raise Unusable(f"{str(error).rstrip('.')}.", where, "Write it as the API gives it.") from None
    except Malformed as error:
        raise Unusable(str(error), where, "Write it as the API gives it.") from None
    except Refusal as refusal:
        raise Unusable(refusal.message, where, "Write it as the API gives it.") from None


def _services(given: list[Any]) -> dict[str, run_v2.Service]:
    found: dict[str, run_v2.Service] = {}
    for index, each in enumerate(given):
        where = f"services[{index}]"
        service = run_v2.Service()
        with _at(where):
            _json_format.ParseDict(each, to_pb(service))
            name = ServiceName.parse(service.name)
        with _at(f"{where} ({name})"):
            defaults.fill_service(service)
            validation.service(service, name.service)
        if service.name in found:
            raise Unusable(f"{service.name} is there twice.", where, "Name every service once.")
        found[service.name] = service
    return found


def _revisions(given: list[Any], services: dict[str, run_v2.Service]) -> dict[str, list[StoredRevision]]:
    read_: dict[str, list[run_v2.Revision]] = {}
    seen: set[str] = set()
    for index, each in enumerate(given):
        where = f"revisions[{index}]"
        revision = run_v2.Revision()
        with _at(where):
            _json_format.ParseDict(each, to_pb(revision))
        service, _, key = revision.name.rpartition("/revisions/")
        if service not in services:
            text = f"{revision.name or 'It'} is a revision of no service of this file."
            raise Unusable(text, where, "Name it SERVICE/revisions/REVISION, and give its service as well.")
        if revision.name in seen:
            raise Unusable(f"{revision.name} is there twice.", where, "Name every revision once.")
        with _at(f"{where} ({key})"):
            validation.revision_name(key, short(service))
        seen.add(revision.name)
        revision.service = service
        read_.setdefault(service, []).append(revision)
    return {service: _numbered(service, found) for service, found in read_.items()}


def _numbered(service: str, revisions: list[run_v2.Revision]) -> list[StoredRevision]:
    """The revisions of a service as they were made: by their times, and else as they stand in the file."""
    now = clock.now()
    for each in revisions:
        each.create_time = each.create_time or now
    ordered = sorted(revisions, key=lambda each: each.create_time.timestamp())
    return [_revision(ServiceName.parse(service), each, number) for number, each in enumerate(ordered, 1)]


def _revision(name: ServiceName, given: run_v2.Revision, number: int) -> StoredRevision:
    """A revision as it is kept, with what it lacks filled in as for a template."""
    template = run_v2.RevisionTemplate()
    target = to_pb(template)
    for field, value in to_pb(given).ListFields():
        if field.name in target.DESCRIPTOR.fields_by_name and (field.is_repeated or field.message_type):
            getattr(target, field.name).MergeFrom(value)
        elif field.name in target.DESCRIPTOR.fields_by_name:
            setattr(target, field.name, value)
    with _at(f"revisions ({short(given.name)})"):
        defaults.fill_template(template, name.project)
        validation.template(template, name.service)
    filled = changes.revision(run_v2.Service(launch_stage=given.launch_stage, template=template), name, short(given.name), given.creator)
    filled.uid = given.uid or filled.uid
    filled.create_time = given.create_time
    filled.update_time = given.update_time or given.create_time
    filled.etag = etag(filled.name, filled.update_time)
    filled.reconciling, filled.observed_generation = False, filled.generation
    ready = conditions.find(given.conditions, "Ready")
    if ready is not None and ready.state in _UNTRIED:
        raise Unusable("It was still being deployed.", f"revisions ({short(given.name)})", "Export once it is ready or has failed.")
    phase: Phase = "failed" if ready is not None and ready.state == Condition.CONDITION_FAILED else "ready"
    if ready is not None:
        filled.conditions = given.conditions
    else:
        conditions.ready_revision(filled, 0, 0)
    images = " ".join(each.image for each in filled.containers)
    message = ready.message if ready is not None and phase == "failed" else ""
    body, kept = run_v2.Revision.serialize(filled), run_v2.RevisionTemplate.serialize(template)
    return StoredRevision(filled.name, str(name), number, body, kept, images, phase, message)


def _policies(given: dict[str, Any], services: dict[str, run_v2.Service]) -> dict[str, bytes]:
    found = {}
    for name, each in given.items():
        if name not in services:
            raise Unusable("This is no service of this file.", f"policies ({name[:120]})", "Give the service as well.")
        with _at(f"policies ({name})"):
            found[name] = _json_format.ParseDict(each, _policy.Policy()).SerializeToString()
    return found


def _stored(name: ServiceName, service: run_v2.Service, revisions: list[StoredRevision], policy: bytes) -> StoredService:
    """A service as it is kept: it serves by its statuses, or by its targets."""
    if not revisions:
        raise Unusable("It has no revision.", str(name), "Give at least the one that serves.")
    ready = {short(each.name) for each in revisions if each.phase == "ready"}
    latest = next((each.name for each in reversed(revisions) if each.phase == "ready"), "")
    service.latest_ready_revision = latest
    service.latest_created_revision = revisions[-1].name
    validation.traffic(service.traffic, name.service)
    told: Iterable[Any] = service.traffic_statuses or service.traffic
    routes = [targets.Target(each.revision or short(latest), each.percent, each.tag) for each in told]
    for each in routes:
        if each.revision not in ready:
            raise Unusable(f"Its traffic goes to '{each.revision}', which is no ready revision.", str(name), "Give that revision.")
    service.traffic_statuses = [targets.status(each, "") for each in told]
    service.uri, service.urls = "", []  # it gets one of ours
    service.uid = service.uid or str(uuid.uuid4())
    service.create_time = service.create_time or clock.now()
    service.update_time = service.update_time or service.create_time
    service.generation = service.generation or 1
    service.observed_generation = service.generation
    service.etag = etag(service.name, service.update_time)
    service.reconciling = False
    if conditions.find([service.terminal_condition], "Ready") is None:
        service.terminal_condition = condition("Ready", Condition.CONDITION_SUCCEEDED)
        for kind in ("RoutesReady", "ConfigurationsReady"):
            put(service.conditions, condition(kind, Condition.CONDITION_SUCCEEDED))
    return StoredService(str(name), run_v2.Service.serialize(service), policy, len(revisions), targets.keeping(routes))


def _entry(given: Any, where: str) -> Any:
    entry = entries.LogEntry()
    with _at(where):
        _json_format.ParseDict(given, entry)
    if not entry.log_name:
        raise Unusable("It has no logName.", where, "Name its log: projects/P/logs/LOG.")
    now = entries.timestamp(clock.time_ns())
    if not entry.HasField("receive_timestamp"):
        entry.receive_timestamp.CopyFrom(now)
    if not entry.HasField("timestamp"):
        entry.timestamp.CopyFrom(entry.receive_timestamp)
    entry.insert_id = entry.insert_id or uuid.uuid4().hex[:16]
    return entry
