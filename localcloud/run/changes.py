"""What an update makes of a service: pure functions over messages (service.proto UpdateServiceRequest)."""

import datetime
import uuid
from collections.abc import Iterable
from typing import Any

from google.cloud import run_v2

from localcloud import clock
from localcloud.naming import ServiceName, etag
from localcloud.run import conditions
from localcloud.run.violations import invalid
from localcloud.wire import Refusal, to_pb

_CLIENTS_OWN = (
    "description", "labels", "annotations", "client", "client_version", "ingress", "launch_stage", "binary_authorization", "template",
    "traffic", "scaling", "invoker_iam_disabled", "default_uri_disabled", "iap_enabled", "multi_region_settings", "custom_audiences",
    "build_config",
)  # fmt: skip
_FROM_TEMPLATE = (
    "labels", "annotations", "scaling", "vpc_access", "max_instance_request_concurrency", "timeout", "service_account", "containers",
    "volumes", "execution_environment", "encryption_key", "service_mesh", "encryption_key_revocation_action",
    "encryption_key_shutdown_duration", "session_affinity", "node_selector", "gpu_zonal_redundancy_disabled",
)  # fmt: skip
_KEPT = datetime.timedelta(days=30)


def merged(current: run_v2.Service, wanted: run_v2.Service, paths: Iterable[str]) -> run_v2.Service:
    """The service with the fields that the mask names taken from the request; no mask, or `*`, means all that a client may set."""
    made = run_v2.Service(current)
    paths = list(paths)
    if not paths or "*" in paths:
        paths = list(_CLIENTS_OWN)
    for path in paths:
        names = path.split(".")
        if names[0] in _CLIENTS_OWN:
            _take(path, names, to_pb(wanted), to_pb(made))
        elif names[0] not in to_pb(made).DESCRIPTOR.fields_by_name:
            raise _no_field(path)
        else:  # an output-only field: what a client says of it is ignored
            _take(path, names, to_pb(wanted), to_pb(run_v2.Service(made)))
    for container in made.template.containers:
        del container.build_info  # output only
    return made


def _take(path: str, names: list[str], source: Any, target: Any) -> None:
    known = target.DESCRIPTOR.fields_by_name.get(names[0])
    if known is None:
        raise _no_field(path)
    if len(names) > 1:
        if known.is_repeated or known.message_type is None:
            raise invalid(f"update_mask: '{path}' goes into '{names[0]}', which has no fields; name '{names[0]}' as a whole.")
        _take(path, names[1:], getattr(source, names[0]), getattr(target, names[0]))
        return
    target.ClearField(names[0])
    if known.is_repeated:
        getattr(target, names[0]).MergeFrom(getattr(source, names[0]))
    elif known.message_type is not None:
        if source.HasField(names[0]):
            getattr(target, names[0]).CopyFrom(getattr(source, names[0]))
    elif not known.has_presence or source.HasField(names[0]):
        setattr(target, names[0], getattr(source, names[0]))


def _no_field(path: str) -> Refusal:
    """The real one was seen to answer such a mask (`scaling.minInstanceCount`) with the conflict of a revision's name [approximated]."""
    return invalid(f"update_mask: '{path}' is not a field of a service.")


def created(name: ServiceName, wanted: run_v2.Service, author: str) -> run_v2.Service:
    """A new service with what its client may set."""
    made = merged(run_v2.Service(name=str(name), uid=str(uuid.uuid4())), wanted, ())
    made.create_time = clock.now()
    made.creator = author
    return made


def stamped(service: run_v2.Service, author: str) -> run_v2.Service:
    """The service as one generation further, with a new update time and etag."""
    service.generation += 1
    service.update_time = clock.now()
    service.last_modifier = author
    service.etag = etag(service.name, service.update_time)
    return service


def same(one: run_v2.RevisionTemplate, other: run_v2.RevisionTemplate) -> bool:
    """Whether two templates are equal, names included."""
    return bool(to_pb(one) == to_pb(other))


def nameless(template: run_v2.RevisionTemplate) -> run_v2.RevisionTemplate:
    """The template without the revision's name."""
    copy = run_v2.RevisionTemplate(template)
    copy.revision = ""
    return copy


def revision(service: run_v2.Service, name: ServiceName, short_name: str, author: str) -> run_v2.Revision:
    """The revision that a service's template makes."""
    made = run_v2.Revision(
        name=name.revision(short_name),
        uid=str(uuid.uuid4()),
        generation=1,
        service=str(name),
        launch_stage=service.launch_stage,
        reconciling=True,
        conditions=conditions.pending_revision(),
        creator=author,
    )
    template, target = to_pb(service.template), to_pb(made)
    for field in _FROM_TEMPLATE:
        _take(field, [field], template, target)
    made.create_time = made.update_time = clock.now()
    made.etag = etag(made.name, made.update_time)
    made.log_uri = (
        f"https://console.cloud.google.com/logs/viewer?project={name.project}&resource=cloud_run_revision/service_name/{name.service}"
        f"/revision_name/{short_name}"
    )
    return made


def deleted(resource: run_v2.Service | run_v2.Revision) -> None:
    """Tell when a resource was deleted, and until when the real service would keep it [thirty days: approximated]."""
    resource.delete_time = clock.now()
    resource.expire_time = clock.now() + _KEPT
