"""Brings services to what their clients want: revisions are tried, routes replaced, conditions told (service.proto, `reconciling`).

The two halves are Knative's: the configuration (is the latest created revision ready?) and the routes (do the traffic targets serve?).
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import replace

from google.cloud import run_v2

from localcloud import clock
from localcloud.instances import blueprint as blueprints
from localcloud.instances.blueprint import Blueprint
from localcloud.instances.engine import Engine
from localcloud.instances.failures import Common, Failure
from localcloud.instances.fleet import DEPLOYED, Fleet
from localcloud.naming import ServiceName, etag, short
from localcloud.run import conditions, scaling, targets
from localcloud.state import State, StoredRevision, StoredService
from localcloud.traffic import access
from localcloud.traffic.proxy import Proxy
from localcloud.traffic.routes import Routes, Share
from localcloud.wire import Code, Refusal

log = logging.getLogger(__name__)


class Reconciler:
    """The state of all services, and how it is reached."""

    def __init__(self, state: State, engine: Engine, fleet: Fleet, proxy: Proxy) -> None:
        self._state, self._engine, self._fleet, self._proxy = state, engine, fleet, proxy
        self._trials: dict[str, asyncio.Task[None]] = {}
        self._again: set[asyncio.Task[None]] = set()

    async def deploy(self, name: ServiceName, revision: str) -> run_v2.Service:
        """Try the service's new revision and serve by the targets; Refusal (code 9) with the revision's message if it cannot serve."""
        await self._state.insist(lambda: self.settle(name))
        tried = await self.trial(revision)
        if tried is None or self._state.service(str(name)) is None:
            raise Refusal(Code.ABORTED, f"Revision '{short(revision)}' was deleted while it was deployed.")
        problem = await self._state.insist(lambda: self.settle(name))
        if tried.phase == "failed":
            raise Refusal(Code.FAILED_PRECONDITION, tried.message)
        if problem:
            raise Refusal(Code.FAILED_PRECONDITION, problem)
        return self.read(name)

    async def shift(self, name: ServiceName) -> run_v2.Service:
        """Serve by the targets; waits for revisions among them that are still being tried."""
        for stored in self._awaited(self.read(name)):
            await self.trial(stored.name)
        problem = await self._state.insist(lambda: self.settle(name))
        if problem:
            raise Refusal(Code.FAILED_PRECONDITION, problem)
        return self.read(name)

    def read(self, name: ServiceName) -> run_v2.Service:
        """Give a service."""
        service = self.find(name)
        if service is None:
            raise Refusal(Code.ABORTED, f"Service '{name.service}' was deleted meanwhile.")
        return service

    def find(self, name: ServiceName) -> run_v2.Service | None:
        """Give a service, if it is there."""
        stored = self._state.service(str(name))
        return run_v2.Service.deserialize(stored.body) if stored else None

    async def delete(self, name: ServiceName, uid: str) -> None:
        """Delete a service with its revisions, unless it is gone already."""

        def delete() -> None:
            service = self.find(name)
            if service is not None and service.uid == uid:
                self.forget(name)

        await self._state.insist(delete)

    async def delete_revision(self, revision: str, uid: str) -> None:
        """Delete a revision, unless it is gone already or was given traffic meanwhile."""

        def delete() -> None:
            stored = self._same(revision, uid)
            if stored is None:
                return
            if self.reachable(ServiceName.parse(stored.service), short(revision)):
                raise serving(revision)
            self.forget_revision(revision)

        await self._state.insist(delete)

    def give_up(self, name: ServiceName, revision: str, message: str) -> None:
        """Do not try a revision, do not change the routes: tell that it failed."""
        tried = self._state.revision(revision) if revision else None
        if tried is not None and tried.phase == "pending":
            wanted = run_v2.Revision.deserialize(tried.body)
            conditions.failed_revision(wanted, message, Common.INTERNAL, containers_fault=False)
            self._told(wanted, replace(tried, phase="failed", message=message))
        stored = self._state.service(str(name))
        if stored is not None:
            service = run_v2.Service.deserialize(stored.body)
            _conclude(service, tried and self._state.revision(revision), message, waiting=False)
            self._state.put_service(replace(stored, body=run_v2.Service.serialize(service)))

    # revisions

    async def trial(self, revision: str) -> StoredRevision | None:
        """Have a revision tried, once, and give it as it is then; None if it was deleted, even if another has its name now."""
        stored = self._state.revision(revision)
        if stored is None:
            return None
        wanted = run_v2.Revision.deserialize(stored.body)
        uid = wanted.uid
        task = self._trials.get(uid)
        if task is None and stored.phase == "pending":
            task = self._trials[uid] = asyncio.create_task(self._try(stored, wanted))
            task.add_done_callback(lambda _: self._trials.pop(uid, None))
        if task is not None:
            await asyncio.shield(task)
        return self._same(revision, uid)

    def _same(self, revision: str, uid: str) -> StoredRevision | None:
        stored = self._state.revision(revision)
        return stored if stored is not None and run_v2.Revision.deserialize(stored.body).uid == uid else None

    async def _try(self, stored: StoredRevision, wanted: run_v2.Revision) -> None:
        name, uid = stored.name, wanted.uid
        began = pulled = time.monotonic()
        project = name.split("/")[1]
        try:
            images = [await self._engine.resolve(project, short(name), each.image) for each in wanted.containers]
            for each in images:
                await self._engine.fetch(project, short(name), each)
            image = " ".join(images)
            pulled = time.monotonic()
            stored = replace(stored, image=image)
            if self._same(name, uid) is None:  # deleted meanwhile
                return
            await self._fleet.ensure(blueprints.read(wanted, image, self._labels(wanted.service)), DEPLOYED)
        except Failure as failure:
            conditions.failed_revision(wanted, failure.message, failure.reason, containers_fault=failure.containers_fault)
            stored = replace(stored, phase="failed", message=failure.message)
        except Refusal as refusal:  # the Engine went away
            conditions.failed_revision(wanted, refusal.message, Common.INTERNAL, containers_fault=False)
            stored = replace(stored, phase="failed", message=refusal.message)
        except Exception as error:  # a mistake of ours: nobody may wait for this revision for ever
            log.exception("%s could not be tried", name)
            text = f"The local cloud failed: {type(error).__name__}: {error}"
            conditions.failed_revision(wanted, text, Common.INTERNAL, containers_fault=False)
            stored = replace(stored, phase="failed", message=text)
        else:
            conditions.ready_revision(wanted, time.monotonic() - began, pulled - began)
            stored = replace(stored, phase="ready")
        await self._state.insist(lambda: self._conclude_trial(wanted, stored))

    def _conclude_trial(self, wanted: run_v2.Revision, stored: StoredRevision) -> None:
        if self._same(stored.name, wanted.uid) is not None:
            self._told(wanted, stored)
        elif self._state.revision(stored.name) is None:  # deleted meanwhile
            self._fleet.drop([stored.name])

    def _told(self, revision: run_v2.Revision, stored: StoredRevision) -> None:
        revision.reconciling = False
        revision.observed_generation = revision.generation
        self.save(revision, stored)

    def save(self, revision: run_v2.Revision, stored: StoredRevision) -> None:
        """Write a revision."""
        revision.update_time = clock.now()
        revision.etag = etag(revision.name, revision.update_time)
        self._state.put_revision(replace(stored, body=run_v2.Revision.serialize(revision)))

    # services

    def settle(self, name: ServiceName) -> str:
        """Bring routes and conditions to what can be served now; gives the routes' problem ("" if none). Quick: nothing is waited for."""
        stored = self._state.service(str(name))
        if stored is None:
            return ""
        service = run_v2.Service.deserialize(stored.body)
        service.latest_ready_revision = self._state.latest_ready(str(name))
        created = self._state.revision(service.latest_created_revision)
        problem, waiting = self._routes_problem(service, name, created)
        routes = stored.routes
        if not problem and not waiting:
            routes = targets.keeping(targets.wanted(service))
            self._tell_routes(service, name)
        _conclude(service, created, problem, waiting=waiting)
        self._state.put_service(replace(stored, body=run_v2.Service.serialize(service), routes=routes))
        self.serve(name)
        return problem

    def _awaited(self, service: run_v2.Service) -> list[StoredRevision]:
        """The revisions among the targets that are still being tried."""
        name = ServiceName.parse(service.name)
        wanted = {name.revision(each.revision) if each.revision else service.latest_created_revision for each in service.traffic}
        found = [self._state.revision(each) for each in sorted(wanted)]
        return [each for each in found if each is not None and each.phase == "pending"]

    def _routes_problem(self, service: run_v2.Service, name: ServiceName, created: StoredRevision | None) -> tuple[str, bool]:
        if self._awaited(service):
            return "", True
        for target in service.traffic:
            key = target.revision or short(service.latest_ready_revision)
            found = self._state.revision(name.revision(key))
            if found is None and target.revision:  # [a real text; its code was 13 in 2023, ours is that of other failures: approximated]
                text = f"Revision '{key}' does not exist or is deleted. Update all traffic to route to currently available revisions."
                return text, False
            if found is None or found.phase != "ready":
                wanted = found or created
                return (wanted.message if wanted and wanted.message else f"Revision '{key}' is not ready and cannot serve traffic."), False
        return "", False

    def _tell_routes(self, service: run_v2.Service, name: ServiceName) -> None:
        service.uri = self._proxy.reserve(name)
        service.urls = [service.uri]
        service.traffic_statuses = [
            targets.status(target, self._proxy.reserve(name, target.tag) if target.tag else "") for target in service.traffic
        ]

    def serve(self, name: ServiceName, *, warm: bool = True) -> None:
        """Give the data plane the routes as stored; retire and revive revisions accordingly.

        Not `warm`: only what has a least number of instances is started, the rest when it is asked for.
        """
        stored = self._state.service(str(name))
        if stored is None:
            return
        service = run_v2.Service.deserialize(stored.body)
        chosen = targets.kept(stored.routes)
        percents = targets.percents(chosen)
        found = {each.name: each for each in self._state.active_revisions(str(name))}
        served = {name.revision(each) for each in targets.reached(chosen)}
        revived = [self._state.revision(each) for each in sorted(served - found.keys())]
        found |= {each.name: each for each in revived if each is not None and each.phase == "ready"}
        reachable: dict[str, Blueprint] = {}
        for each in found.values():
            revision, key = run_v2.Revision.deserialize(each.body), short(each.name)
            if each.name not in served:
                self._tell_activity(revision, each, None)
                continue
            limits = scaling.limits(service.scaling, revision.scaling, percents, key)
            reachable[key] = replace(blueprints.read(revision, each.image, service.labels), least=limits.least, most=limits.most)
            self._tell_activity(revision, each, reachable[key])
        shares = tuple(Share(reachable[each.revision], each.percent) for each in chosen if each.percent and each.revision in reachable)
        tags = {each.tag: reachable[each.revision] for each in chosen if each.tag and each.revision in reachable}
        routes = Routes(shares, tags, access.read(service, stored.policy))
        retired = sorted(found.keys() - served)
        self._state.afterwards(lambda: self._proxy.route(name, routes))
        started = {each.key: each for each in reachable.values() if warm or each.least}
        self._state.afterwards(lambda: self._fleet.settle(started, retired))

    def _tell_activity(self, revision: run_v2.Revision, stored: StoredRevision, active: Blueprint | None) -> None:
        before = run_v2.Revision.serialize(revision)
        conditions.activity(revision, active=active is not None, least=active.least if active else 0)
        told = replace(stored, activity="active" if active else "retired")
        if told != stored or run_v2.Revision.serialize(revision) != before:
            self.save(revision, told)

    def blueprint(self, revision: str) -> Blueprint | None:
        """A ready revision by its full name."""
        stored = self._state.revision(revision)
        if stored is None or stored.phase != "ready":
            return None
        return blueprints.read(run_v2.Revision.deserialize(stored.body), stored.image, self._labels(stored.service))

    def _labels(self, service: str) -> dict[str, str]:
        found = self.find(ServiceName.parse(service))
        return dict(found.labels) if found else {}

    async def restore(self) -> None:
        """After a restart: listen on the ports as before, and take up the containers that still run."""
        await self._fleet.adopt(self.blueprint)
        with self._state.transaction():
            unfinished = {each.service for each in self._state.pending_revisions()}
            for stored in self._state.services():
                if self._restore(stored):
                    unfinished.add(stored.name)
        for service in sorted(unfinished):  # their operations go on with them; where one was deleted, nobody else would
            task = asyncio.create_task(self._finish(ServiceName.parse(service)))
            self._again.add(task)
            task.add_done_callback(self._again.discard)
        self._fleet.settle({}, self._state.retired_revisions())  # one may just have been ending

    def _restore(self, stored: StoredService) -> bool:
        """Serve as before; gives whether there is more to do."""
        name, service = ServiceName.parse(stored.name), run_v2.Service.deserialize(stored.body)
        if service.traffic_statuses:  # the ports are the same as ever, unless somebody else took one meanwhile
            service.uri = self._proxy.reserve(name)
            service.urls = [service.uri]
        for status in service.traffic_statuses:
            if status.tag:
                status.uri = self._proxy.reserve(name, status.tag)
        body = run_v2.Service.serialize(service)
        if body != stored.body:
            self._state.put_service(replace(stored, body=body))
        self.serve(name, warm=False)
        return bool(service.reconciling)

    def take_up(self, services: Iterable[str]) -> None:
        """Serve services that were written into the state by somebody else."""
        with self._state.transaction():
            for service in services:
                stored = self._state.service(service)
                if stored is not None:
                    self._restore(stored)

    async def _finish(self, name: ServiceName) -> None:
        for pending in self._state.pending_revisions(str(name)):
            await self.trial(pending.name)
        await self._state.insist(lambda: self.settle(name))

    def reachable(self, name: ServiceName, revision: str) -> bool:
        """Whether a revision has traffic or a tag, in fact or by its service's wish."""
        return name.revision(revision) in self.served(name)

    def served(self, name: ServiceName) -> set[str]:
        """The full names of the revisions that have traffic or a tag, in fact or by the service's wish."""
        stored = self._state.service(str(name))
        routes = {each.revision for each in targets.kept(stored.routes)} if stored else set()
        return {name.revision(each) for each in routes | {target.revision for target in self.read(name).traffic} if each}

    def forget_revision(self, revision: str) -> None:
        """Delete a revision that does not serve."""
        self._state.delete_revision(revision)
        self._state.afterwards(lambda: self._fleet.drop([revision]))

    def forget(self, name: ServiceName) -> None:
        """Delete a service with its revisions."""
        revisions = self._state.revision_names(str(name))
        self._state.delete_service(str(name))
        self._state.afterwards(lambda: self._proxy.forget(name))
        self._state.afterwards(lambda: self._fleet.drop(revisions))

    async def close(self) -> None:
        """Stop trying; what was pending is tried again after a restart."""
        tasks = [*self._trials.values(), *self._again]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def serving(revision: str) -> Refusal:
    """Why a revision cannot be deleted (text: quoted by other emulators' tests)."""
    text = f'Revision "{short(revision)}" cannot be directly deleted because it is actively serving.'
    return Refusal(Code.FAILED_PRECONDITION, text)


def _conclude(service: run_v2.Service, created: StoredRevision | None, problem: str, *, waiting: bool) -> None:
    """Tell the conditions of a service."""
    pending = created is not None and created.phase == "pending"
    failed = created.message if created is not None and created.phase == "failed" else ""
    conditions.conclude(service, failed=failed, pending=pending, problem=problem, waiting=waiting)
