"""Cloud Run v2 Services and Revisions (google/cloud/run/v2/service.proto, revision.proto)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from google.cloud import run_v2
from google.longrunning import operations_pb2

from localcloud import naming
from localcloud.admin.denials import Denials
from localcloud.instances.engine import Engine
from localcloud.naming import ServiceName, short
from localcloud.pages import page
from localcloud.run import changes, defaults, iam, limits, validation
from localcloud.run.jobs import Jobs
from localcloud.run.reconcile import Reconciler, serving
from localcloud.run.violations import Malformed, invalid
from localcloud.state import State, StoredRevision, StoredService
from localcloud.wire import Code, Context, Refusal, caller, pack, to_pb

_NOBODY = "developer@localhost"  # who calls without a token

_service: Any = run_v2.Service.pb()  # reads give the protobuf classes themselves; the proto-plus wrappers are several times slower
_services: Any = run_v2.ListServicesResponse.pb()
_revision: Any = run_v2.Revision.pb()
_revisions: Any = run_v2.ListRevisionsResponse.pb()


@dataclass(frozen=True)
class Change:
    """A service as it will be, and the revision that it needs (None: the template stayed as it was)."""

    name: ServiceName
    service: run_v2.Service
    stored: StoredService
    revision: StoredRevision | None


class Services:
    """google.cloud.run.v2.Services."""

    def __init__(self, state: State, engine: Engine, jobs: Jobs, reconciler: Reconciler, denials: Denials) -> None:
        self._state, self._engine, self._jobs, self._reconciler, self._denials = state, engine, jobs, reconciler, denials

    async def CreateService(self, request: Any, ctx: Context) -> Any:
        """[service.proto CreateService] The name comes from parent and service_id alone [refused by the real service, though ignored in
        service.proto]."""
        author = caller(ctx) or _NOBODY

        def plan() -> Change:
            if request.service.name:
                raise Malformed("", "service.name must be empty on CreateServiceRequest.")
            return self._creation(request.parent, request.service_id, request.service, author)

        return await self._carry_out("CreateService", plan, request.validate_only)

    async def UpdateService(self, request: Any, ctx: Context) -> Any:
        """[service.proto UpdateService] With an etag: only if nothing was written in between."""
        author = caller(ctx) or _NOBODY

        def plan() -> Change:
            name = ServiceName.parse(request.service.name)
            stored = self._state.service(str(name))
            if stored is None and request.allow_missing:
                return self._creation(name.parent, name.service, request.service, author)
            if stored is None:
                raise naming.service_missing(name)
            return self._update(name, stored, request.service, list(request.update_mask.paths), author)

        return await self._carry_out("UpdateService", plan, request.validate_only)

    async def GetService(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto GetService]"""
        return _service.FromString(self._stored(request.name)[1].body)

    async def ListServices(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto ListServices] `locations/-` lists all regions."""
        naming.check_parent(request.parent)
        _, project, _, region = request.parent.split("/")
        inside = f"projects/{project}/locations/" + (f"{region}/" if region != "-" else "")
        found = [stored for stored in self._state.services() if stored.name.startswith(inside)]
        chosen, token = page(found, request.page_size, request.page_token)
        return _services(services=[_service.FromString(each.body) for each in chosen], next_page_token=token)

    async def DeleteService(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto DeleteService] With all its revisions."""
        name, stored = self._stored(request.name)
        service = run_v2.Service.deserialize(stored.body)
        _check_etag(service, request.etag, name.service)
        changes.deleted(service)
        if request.validate_only:
            return _done(name.parent, service)
        return await self._jobs.soon(self._jobs.delete("DeleteService", name, service))

    async def GetIamPolicy(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[iam_policy.proto GetIamPolicy]"""
        return iam.read(self._stored(request.resource)[1].policy)

    async def SetIamPolicy(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[iam_policy.proto SetIamPolicy] In force with the next request [the real one takes seconds]."""
        name, stored = self._stored(request.resource)
        policy = iam.changed(stored.policy, request)
        with self._state.transaction():
            self._state.put_service(replace(stored, policy=policy.SerializeToString()))
            self._reconciler.serve(name)
        return policy

    async def TestIamPermissions(self, request: Any, ctx: Context) -> Any:
        """[iam_policy.proto TestIamPermissions]"""
        self._stored(request.resource)
        member = caller(ctx)
        return iam.permissions(request, lambda permission: self._denials.holds(member, permission, request.resource))

    def _stored(self, full_name: str) -> tuple[ServiceName, StoredService]:
        name = ServiceName.parse(full_name)
        stored = self._state.service(str(name))
        if stored is None:
            raise naming.service_missing(name)
        return name, stored

    def _creation(self, parent: str, service_id: str, wanted: run_v2.Service, author: str) -> Change:
        naming.check_place(parent)
        validation.service_id(service_id)
        name = ServiceName.parse(f"{parent}/services/{service_id}")
        if self._state.service(str(name)) is not None:
            raise Refusal(Code.ALREADY_EXISTS, f"Resource '{service_id}' already exists.")
        change = self._change(name, StoredService(str(name), b""), changes.created(name, wanted, author), None, author)
        limits.room_for_service(name, self._state.services())
        return change

    def _update(self, name: ServiceName, stored: StoredService, wanted: run_v2.Service, paths: list[str], author: str) -> Change:
        current = run_v2.Service.deserialize(stored.body)
        _check_etag(current, wanted.etag, name.service)
        return self._change(name, stored, changes.merged(current, wanted, paths), current, author)

    def _change(
        self, name: ServiceName, stored: StoredService, service: run_v2.Service, before: run_v2.Service | None, author: str
    ) -> Change:
        """Complete and check a service; nothing is written yet."""
        if "template" not in service:
            raise Malformed("template", "required field not present.")
        defaults.fill_service(service)
        validation.service(service, name.service)
        validation.traffic(service.traffic, name.service)
        old = {target.tag for target in (before.traffic if before else ()) if target.tag}
        if {target.tag for target in service.traffic if target.tag} - old:
            service.traffic = limits.tidied(name, list(service.traffic), old, self._state.services())
        revision = self._new_revision(name, stored, service, before, author)
        service = changes.stamped(service, author)
        if revision is not None:
            service.latest_created_revision = revision.name
        return Change(name, service, stored, revision)

    def _new_revision(
        self, name: ServiceName, stored: StoredService, service: run_v2.Service, before: run_v2.Service | None, author: str
    ) -> StoredRevision | None:
        template = service.template
        if before is not None and changes.same(template, before.template):
            return None
        bare = changes.nameless(template)
        number = stored.made + 1
        if template.revision:
            existing = self._state.revision(name.revision(template.revision))
            if existing is not None:
                if changes.same(run_v2.RevisionTemplate.deserialize(existing.template), bare):
                    return None
                text = f"Revision named '{template.revision}' with different configuration already exists."
                raise Refusal(Code.ALREADY_EXISTS, text)
        short_name = template.revision or naming.new_revision(name.service, number)
        made = changes.revision(service, name, short_name, author)
        body, kept = run_v2.Revision.serialize(made), run_v2.RevisionTemplate.serialize(bare)
        return StoredRevision(made.name, str(name), number, body, kept, image="", phase="pending", message="")

    async def _carry_out(self, method: str, plan: Callable[[], Change], validate_only: bool) -> Any:
        change = _planned(method, plan)
        if validate_only:
            return _done(change.name.parent, change.service)
        if change.revision is not None:
            await self._engine.check()
            change = _planned(method, plan)  # somebody may have written meanwhile
        name, revision = change.name, change.revision
        change.service.reconciling = True
        made = change.stored.made + (1 if revision else 0)
        with self._state.transaction():
            self._state.put_service(replace(change.stored, body=run_v2.Service.serialize(change.service), made=made))
            if revision is not None:
                self._state.put_revision(revision)
                self._forget_oldest(name)
                operation = self._jobs.deploy(method, name, change.service, revision.name)
            else:
                operation = self._jobs.shift(method, name, change.service)
        return await self._jobs.soon(operation)

    def _forget_oldest(self, name: ServiceName) -> None:
        """Beyond 1000 revisions the oldest that do not serve are deleted [https://cloud.google.com/run/quotas]."""
        names = self._state.revision_names(str(name))
        if len(names) <= limits.MOST_REVISIONS:
            return
        service = self._reconciler.read(name)
        kept = {service.latest_ready_revision, service.latest_created_revision, *self._reconciler.served(name)}
        for revision in limits.superfluous(names, kept):
            self._reconciler.forget_revision(revision)


class Revisions:
    """google.cloud.run.v2.Revisions."""

    def __init__(self, state: State, jobs: Jobs, reconciler: Reconciler) -> None:
        self._state, self._jobs, self._reconciler = state, jobs, reconciler

    async def GetRevision(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[revision.proto GetRevision]"""
        return _revision.FromString(self._stored(request.name).body)

    async def ListRevisions(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[revision.proto ListRevisions] Newest first; `services/-` lists those of all services."""
        parent = ServiceName.parse(request.parent)
        if parent.service != "-" and self._state.service(str(parent)) is None:
            raise naming.service_missing(parent)
        if parent.service != "-":
            stored, token = page(self._state.revisions(str(parent)), request.page_size, request.page_token)
            return _revisions(revisions=[_revision.FromString(each.body) for each in stored], next_page_token=token)
        inside = f"{parent.parent}/"
        found = [_revision.FromString(each.body) for each in self._state.all_revisions() if each.name.startswith(inside)]
        found.sort(key=lambda each: (each.create_time.seconds, each.create_time.nanos), reverse=True)
        chosen, token = page(found, request.page_size, request.page_token)
        return _revisions(revisions=chosen, next_page_token=token)

    async def DeleteRevision(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[revision.proto DeleteRevision] Not the latest created, and none that serves (texts: quoted by other emulators' tests)."""
        stored = self._stored(request.name)
        revision, name = run_v2.Revision.deserialize(stored.body), ServiceName.parse(stored.service)
        if request.etag and request.etag != revision.etag:
            raise _conflict(short(stored.name), request.etag, revision.update_time)
        service = self._reconciler.read(name)
        if service.latest_created_revision == stored.name:
            raise Refusal(Code.FAILED_PRECONDITION, f"The latest created Revision '{short(stored.name)}' cannot be directly deleted.")
        if self._reconciler.reachable(name, short(stored.name)):
            raise serving(stored.name)
        changes.deleted(revision)
        if request.validate_only:
            return _done(name.parent, revision)
        return await self._jobs.soon(self._jobs.delete_revision("DeleteRevision", name, revision))

    def _stored(self, full_name: str) -> StoredRevision:
        stored = self._state.revision(full_name)
        if stored is None:
            parts = full_name.split("/")
            if len(parts) != 8 or parts[6] != "revisions":
                raise invalid(f"'{full_name}' is not a revision name.")
            text = f"Resource '{parts[7]}' of kind 'REVISION' in region '{parts[3]}' in project '{parts[1]}' does not exist."
            raise Refusal(Code.NOT_FOUND, text)
        return stored


def _planned(method: str, plan: Callable[[], Change]) -> Change:
    try:
        return plan()
    except Malformed as malformed:
        raise malformed.within(f"{method}Request") from None


def _check_etag(current: run_v2.Service, given: str, service: str) -> None:
    if given and given != current.etag:
        raise _conflict(service, given, current.update_time)


def _conflict(resource: str, given: str, updated: Any) -> Refusal:
    """[real texts of v1 calls, facts §3]"""
    current = naming.version_of(updated)
    text = f"Conflict for resource '{resource}': version '{naming.version_in(given)}' was specified but current version is '{current}'."
    return Refusal(Code.ABORTED, text)


def _done(parent: str, resource: Any) -> Any:
    """The operation that validate_only gives: done, and nothing happened [approximated]."""
    operations: Any = operations_pb2
    operation = operations.Operation(name=f"{parent}/operations/validated", done=True, response=pack(resource))
    operation.metadata.Pack(to_pb(resource))
    return operation
