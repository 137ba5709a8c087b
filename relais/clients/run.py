"""Cloud Run's Admin API v2: read a service whole, write one move, deploy one revision.

https://cloud.google.com/run/docs/reference/rpc/google.cloud.run.v2
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2
from google.protobuf.field_mask_pb2 import FieldMask  # type: ignore[attr-defined]  # generated modules have no types

from relais.clients.endpoint import client_of, reading, translated
from relais.errors import StepFailed
from relais.model import LATEST, Revision, ServiceName, Serving, Share, Split, Target
from relais.rollout import ANNOTATION, STAMP_COMMIT, STAMP_RELEASE, STAMP_TAG, Write

READ, WRITE = 10.0, 15.0  # seconds; the guard of a release asks for less
_LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
_REVISION = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
_SUCCEEDED = run_v2.Condition.State.CONDITION_SUCCEEDED
_FAILED = run_v2.Condition.State.CONDITION_FAILED
_INGRESS: dict[str, Any] = {
    "all": run_v2.IngressTraffic.INGRESS_TRAFFIC_ALL,
    "internal": run_v2.IngressTraffic.INGRESS_TRAFFIC_INTERNAL_ONLY,
    "internal-and-cloud-load-balancing": run_v2.IngressTraffic.INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER,
}


class CloudRun:
    """One project's services in one region."""

    def __init__(self) -> None:
        self._services: Any = client_of(run_v2.ServicesClient)
        self._revisions: Any = client_of(run_v2.RevisionsClient)

    # -- read ------------------------------------------------------------------------------------------------------------

    def read(self, service: ServiceName, *, timeout: float = READ, access: bool = False) -> Serving:
        """The service as it is; `exists` is False where there is none. Who may call it is a question of its own (`access`)."""
        with translated(str(service)):
            try:
                found = self._services.get_service(name=service.full, **reading(timeout))
            except NotFound:
                return Serving(service=service, exists=False)
            public = bool(found.invoker_iam_disabled) or (access and self._open_to_all(service, timeout))
        return _serving(service, found, public)

    def _open_to_all(self, service: ServiceName, timeout: float) -> bool:
        policy = self._services.get_iam_policy(request=iam_policy_pb2.GetIamPolicyRequest(resource=service.full), timeout=timeout)
        return any(b.role == "roles/run.invoker" and "allUsers" in b.members for b in policy.bindings)

    def services(self, project: str, region: str) -> Iterator[Serving]:
        """All services of a region that carry the rollout annotation."""
        with translated(f"{project} {region}"):
            for found in self._services.list_services(parent=f"projects/{project}/locations/{region}", timeout=READ):
                if ANNOTATION in found.annotations:
                    name = ServiceName(project=project, region=region, name=_short(found.name))
                    yield _serving(name, found, bool(found.invoker_iam_disabled))

    def revisions(self, service: ServiceName) -> tuple[Revision, ...]:
        """All revisions, newest first."""
        with translated(str(service)):
            serving = self.read(service)
            found = list(self._revisions.list_revisions(parent=service.full, timeout=READ)) if serving.exists else []
        made = [_revision(revision, serving.split) for revision in found]
        return tuple(sorted(made, key=lambda r: r.created or datetime.min.replace(tzinfo=UTC), reverse=True))

    def revision(self, service: ServiceName, name: str) -> run_v2.Revision:
        """One revision in the API's own message."""
        with translated(f"revision {name}"):
            found: run_v2.Revision = self._revisions.get_revision(name=f"{service.full}/revisions/{name}", timeout=READ)
        return found

    def log_uri(self, service: ServiceName, name: str) -> str:
        """Where the console shows a revision's log; "" where the API names no such place."""
        return str(self.revision(service, name).log_uri)

    def state(self, service: ServiceName, name: str) -> tuple[bool | None, str]:
        """Whether a revision is Ready (None: not yet known), and the sentence of its condition."""
        with translated(f"revision {name}"):
            try:
                found = self._revisions.get_revision(name=f"{service.full}/revisions/{name}", timeout=READ)
            except NotFound:
                return None, "Cloud Run has not made the revision yet"
        return _ready(found)

    # -- write -----------------------------------------------------------------------------------------------------------

    def move(self, write: Write, *, timeout: float = WRITE) -> None:
        """Write exactly traffic and annotations, on the etag of the read that `write` was built from.

        Returns once the write is accepted; raises Conflict where somebody wrote in between, and StepFailed where the
        answer names a new revision, which a move never makes.
        """
        body = run_v2.Service(
            name=write.service.full, etag=write.etag, annotations=dict(write.annotations), traffic=[_target(t) for t in write.targets]
        )
        mask = FieldMask(paths=["traffic", "annotations"])
        with translated(str(write.service)):
            operation = self._services.update_service(request=run_v2.UpdateServiceRequest(service=body, update_mask=mask), timeout=timeout)
        created = _short(operation.metadata.latest_created_revision)
        if created and write.latest_created and created != write.latest_created:
            raise StepFailed(
                f"a move of traffic made a revision, {created}", where=str(write.service),
                remedy="look at the service: somebody deployed meanwhile",
            )  # fmt: skip

    def deploy(
        self, write: Write, template: run_v2.RevisionTemplate, *, public: bool | None, ingress: str | None = None,
        scaling: tuple[int | None, int | None] | None = None,
    ) -> None:  # fmt: skip
        """Add a revision at 0 %, take the lock and pin the stable revisions: one write, on one read's etag."""
        body = run_v2.Service(
            name=write.service.full, etag=write.etag, annotations=dict(write.annotations), template=template,
            traffic=[_target(t) for t in write.targets],
        )  # fmt: skip
        paths = ["template", "traffic", "annotations", *_service_settings(body, public, ingress, scaling)]
        request = run_v2.UpdateServiceRequest(service=body, update_mask=FieldMask(paths=paths))
        with translated(str(write.service)):
            self._services.update_service(request=request, timeout=WRITE)

    def create(
        self, service: ServiceName, template: run_v2.RevisionTemplate, annotations: Mapping[str, str], tag: str, *, public: bool | None,
        ingress: str | None = None, scaling: tuple[int | None, int | None] | None = None,
    ) -> None:  # fmt: skip
        """Make a service that does not exist; its first revision serves as soon as it is ready."""
        target = run_v2.TrafficTarget(type_=_LATEST, percent=100, tag=tag)
        body = run_v2.Service(annotations=dict(annotations), template=template, traffic=[target])
        _service_settings(body, public, ingress, scaling)
        with translated(str(service)):
            self._services.create_service(parent=service.parent, service=body, service_id=service.name, timeout=WRITE)


def _service_settings(
    body: run_v2.Service, public: bool | None, ingress: str | None, scaling: tuple[int | None, int | None] | None
) -> list[str]:
    paths = []
    if public is not None:
        body.invoker_iam_disabled = public
        paths.append("invoker_iam_disabled")
    if ingress is not None:
        body.ingress = _INGRESS[ingress]
        paths.append("ingress")
    if scaling is not None:
        least, most = scaling
        if least is not None:
            body.scaling.min_instance_count = least
            paths.append("scaling.min_instance_count")
        if most is not None:
            body.scaling.max_instance_count = most
            paths.append("scaling.max_instance_count")
    return paths


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _target(target: Target) -> run_v2.TrafficTarget:
    if target.revision == LATEST:
        return run_v2.TrafficTarget(type_=_LATEST, percent=target.percent, tag=target.tag)
    return run_v2.TrafficTarget(type_=_REVISION, revision=target.revision, percent=target.percent, tag=target.tag)


def _serving(service: ServiceName, found: run_v2.Service, public: bool) -> Serving:
    latest_ready = _short(found.latest_ready_revision)
    desired = [
        Target(revision=t.revision if t.type_ == _REVISION else LATEST, percent=t.percent, tag=t.tag)
        for t in found.traffic or [run_v2.TrafficTarget(type_=_LATEST, percent=100)]
    ]
    follows = any(t.revision == LATEST and t.percent for t in desired)
    shares = [(s.revision or latest_ready, s.percent) for s in found.traffic_statuses if s.percent]
    condition = found.terminal_condition
    return Serving(
        service=service,
        etag=found.etag,
        uri=found.uri,
        settled=not found.reconciling,
        desired=tuple(desired),
        split=Split(shares=tuple(Share(revision=name, percent=part) for name, part in shares), mode="latest" if follows else "pinned"),
        tags={s.tag: s.uri for s in found.traffic_statuses if s.tag},
        annotations=dict(found.annotations),
        latest_created=_short(found.latest_created_revision),
        latest_ready=latest_ready,
        public=public,
        ingress=next((word for word, value in _INGRESS.items() if value == found.ingress), ""),
        scaling=_scaling(found),
        message="" if condition.state == _SUCCEEDED else condition.message,
        updated=_when(found.update_time),
    )


def _scaling(found: run_v2.Service) -> dict[str, int]:
    set_ = {"min_instances": found.scaling.min_instance_count, "max_instances": found.scaling.max_instance_count}
    return {name: count for name, count in set_.items() if count}


def _revision(found: run_v2.Revision, split: Split) -> Revision:
    name = _short(found.name)
    image = found.containers[0].image if found.containers else ""
    ready, message = _ready(found)
    return Revision(
        name=name,
        created=_when(found.create_time),
        ready=bool(ready),
        message=message,
        image=image,
        digest=image.partition("@")[2],
        tag=found.annotations.get(STAMP_TAG, ""),
        percent=split.percent(name),
        commit=found.annotations.get(STAMP_COMMIT, ""),
        release=found.annotations.get(STAMP_RELEASE, ""),
    )


def _ready(found: run_v2.Revision) -> tuple[bool | None, str]:
    """Judged by the Ready condition alone: a retired revision is Ready, though not Active."""
    for condition in found.conditions:
        if condition.type_ == "Ready":
            if condition.state == _SUCCEEDED:
                return True, condition.message
            if condition.state == _FAILED:
                return False, condition.message
            return None, condition.message
    return None, ""


def _when(at: Any) -> datetime | None:
    return datetime.fromtimestamp(at.timestamp(), UTC) if at else None
