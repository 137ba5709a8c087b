"""Refuses what the real service refuses, before anything is changed.

Texts are the real ones where public reports quote them; the others are marked [approximated].
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from google.api import launch_stage_pb2
from google.cloud import run_v2

from localcloud.run import containers, labels
from localcloud.run.violations import Malformed, invalid
from localcloud.wire import Code, Refusal, to_pb

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ACCOUNT = re.compile(r"[^@\s/]+@[^@\s/]+")
_CONNECTOR = re.compile(r"(projects/[^/\s]+/locations/[^/\s]+/connectors/)?[a-z][-a-z0-9]*")
_POLICY = re.compile(r"projects/[^/\s]+/platforms/cloudRun/[^/\s]+")
_LaunchStage: Any = launch_stage_pb2.LaunchStage
_LAUNCH_STAGES = [_LaunchStage.Value(name) for name in ("ALPHA", "BETA", "GA")]
_MOST_AUDIENCES = 32768  # characters altogether [https://cloud.google.com/run/docs/configuring/custom-audiences]
_LONGEST_TAG_AND_NAME = 46
LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST


def service_id(name: str) -> None:
    """[service.proto CreateServiceRequest.service_id; text approximated]"""
    if not _LABEL.fullmatch(name) or len(name) >= 50:
        raise invalid(
            f"Invalid service id '{name}': it must begin with a letter, and contain only lower case letters, digits and hyphens, "
            "not end with a hyphen, and be shorter than 50 characters."
        )


def service(wanted: run_v2.Service, short_name: str) -> None:
    """Check a service after its defaults were filled in; traffic is checked by `traffic`."""
    if len(wanted.description) > 512:
        raise Malformed("description", "at most 512 characters.")  # [approximated]
    labels.labels(wanted.labels, "labels")
    labels.annotations(wanted.annotations, "annotations")
    _known(wanted.ingress, run_v2.IngressTraffic, "ingress")
    if wanted.launch_stage not in _LAUNCH_STAGES:
        raise Malformed("launch_stage", "must be ALPHA, BETA or GA.")  # [approximated]
    audiences = list(wanted.custom_audiences)
    if "" in audiences or len(set(audiences)) < len(audiences) or sum(map(len, audiences)) > _MOST_AUDIENCES:
        raise Malformed("custom_audiences", "must be different, not empty, and at most 32768 characters altogether.")  # [approximated]
    _binary_authorization(wanted.binary_authorization)
    _service_scaling(wanted.scaling)
    _service_served_here(wanted)
    template(wanted.template, short_name)


def template(wanted: run_v2.RevisionTemplate, short_name: str) -> None:
    """Check a revision template."""
    if wanted.revision:
        revision_name(wanted.revision, short_name)
    labels.labels(wanted.labels, "template.labels")
    labels.annotations(wanted.annotations, "template.annotations")
    if not wanted.containers:
        raise Malformed("template.containers", "should contain at least one container.")  # [approximated]
    timeout = to_pb(wanted).timeout
    if (timeout.seconds, timeout.nanos) > (3600, 0):
        raise Malformed("template.timeout", "maximum allowed time is one hour.")
    if timeout.seconds < 0 or timeout.nanos < 0:
        raise Malformed("template.timeout", "must be greater than zero.")  # [approximated]
    if not 0 <= wanted.max_instance_request_concurrency <= 1000:
        raise Malformed("template.max_instance_request_concurrency", "must be between 0 and 1000.")  # [approximated]
    _scaling(wanted.scaling.min_instance_count, wanted.scaling.max_instance_count, "template.scaling")
    if not _ACCOUNT.fullmatch(wanted.service_account):
        raise Malformed("template.service_account", "must be the email address of a service account.")  # [approximated]
    _known(wanted.execution_environment, run_v2.ExecutionEnvironment, "template.execution_environment")
    _network(wanted.vpc_access)
    containers.check(wanted)
    _served_here(wanted)


def revision_name(name: str, short_name: str) -> None:
    """[service.proto RevisionTemplate.revision; the prefix text is the real one, the other approximated]"""
    if not name.startswith(short_name + "-"):
        raise invalid("template.revision: The revision name must be prefixed by the name of the enclosing Service with a trailing -")
    if not _LABEL.fullmatch(name) or len(name) > 63:
        raise invalid(
            f"template.revision: Invalid revision name '{name}': it must contain only lower case letters, digits and hyphens, "
            "begin with a letter, not end with a hyphen, and be shorter than 64 characters."
        )


def traffic(targets: Iterable[run_v2.TrafficTarget], short_name: str) -> None:
    """[traffic_target.proto; Knative route_validation.go; the text on long tags is the real one]

    A revision that does not exist is no reason to refuse: the operation fails.
    """
    total = 0
    for index, target in enumerate(targets):
        where = f"traffic[{index}]"
        _known(target.type_, run_v2.TrafficTargetAllocationType, where + ".type")
        if target.type_ == LATEST and target.revision:
            raise Malformed(f"{where}.revision", "must be empty if the type is TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST.")  # [approximated]
        if target.type_ != LATEST and not target.revision:
            raise Malformed(f"{where}.revision", "a revision, or the type TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST, is required.")  # [approx.]
        if "/" in target.revision:
            raise Malformed(f"{where}.revision", f"'{target.revision}' must be the short name of a revision.")  # [approximated]
        if not 0 <= target.percent <= 100:
            raise Malformed(f"{where}.percent", f"{target.percent} is not between 0 and 100.")  # [approximated]
        total += target.percent
    _tags([target.tag for target in targets if target.tag], short_name)
    if total != 100:
        raise invalid(f"traffic: Traffic targets sum to {total}, want 100")  # Knative's text [approximated]


def _tags(tags: list[str], short_name: str) -> None:
    for tag in tags:
        if not _LABEL.fullmatch(tag):
            text = f"the tag '{tag[:80]}' must be lower case letters, digits and hyphens, and begin with a letter."
            raise invalid(f"traffic.tag: {text}")  # [approximated]
        if len(tag) + len(short_name) > _LONGEST_TAG_AND_NAME:
            raise invalid(
                f"traffic.tag: traffic tag '{tag}' and service name '{short_name}' together are too long. "
                f"Combined traffic tag and service name cannot exceed {_LONGEST_TAG_AND_NAME} characters."
            )
        if tags.count(tag) > 1:
            raise invalid(f"traffic.tag: Multiple definitions for tag '{tag}'")  # Knative's text [approximated]


def _known(value: int, kind: Iterable[int], path: str) -> None:
    """An enumeration's value that this version of the API has."""
    if value not in list(kind):
        raise Malformed(path, f"{int(value)} is not a known value.")  # [approximated]


def _scaling(least: int, most: int, path: str) -> None:
    if least < 0:
        raise Malformed(f"{path}.min_instance_count", "must be greater or equal than 0.")  # [approximated]
    if most < 0:
        raise Malformed(f"{path}.max_instance_count", "must be greater or equal than 0.")  # [approximated]
    if most and most < least:
        raise Malformed(f"{path}.max_instance_count", "must be greater or equal than min_instance_count.")


def _service_scaling(wanted: run_v2.ServiceScaling) -> None:
    _scaling(wanted.min_instance_count, wanted.max_instance_count, "scaling")
    _known(wanted.scaling_mode, run_v2.ServiceScaling.ScalingMode, "scaling.scaling_mode")
    if wanted.manual_instance_count < 0:
        raise Malformed("scaling.manual_instance_count", "must be greater or equal than 0.")  # [approximated]


def _binary_authorization(wanted: run_v2.BinaryAuthorization) -> None:
    if wanted.policy and not _POLICY.fullmatch(wanted.policy):
        raise Malformed("binary_authorization.policy", "must be projects/PROJECT/platforms/cloudRun/POLICY.")  # [approximated]
    if wanted.breakglass_justification and not (wanted.use_default or wanted.policy):
        text = "must be empty if use_default is false."
        raise Malformed("binary_authorization.breakglass_justification", text)  # [vendor_settings.proto, text approximated]


def _network(wanted: run_v2.VpcAccess) -> None:
    _known(wanted.egress, run_v2.VpcAccess.VpcEgress, "template.vpc_access.egress")
    if wanted.connector and not _CONNECTOR.fullmatch(wanted.connector):
        text = "must be projects/PROJECT/locations/REGION/connectors/CONNECTOR."
        raise Malformed("template.vpc_access.connector", text)  # [approximated]
    if wanted.connector and wanted.network_interfaces:
        raise Malformed("template.vpc_access", "a connector and network_interfaces exclude each other.")  # [approximated]
    if len(wanted.network_interfaces) > 1:
        raise Malformed("template.vpc_access.network_interfaces", "only a single network interface is supported.")  # [approximated]
    if any(not each.network and not each.subnetwork for each in wanted.network_interfaces):
        raise Malformed("template.vpc_access.network_interfaces[0]", "network or subnetwork is required.")  # [approximated]


def _service_served_here(wanted: run_v2.Service) -> None:
    """Refuse, rather than ignore, what this cloud has not."""
    absent = {
        "iap_enabled": wanted.iap_enabled,
        "multi_region_settings": "multi_region_settings" in wanted,
        "build_config": "build_config" in wanted,
    }
    _refuse_absent(absent)


def _served_here(wanted: run_v2.RevisionTemplate) -> None:
    """Refuse, rather than ignore, what this cloud cannot run."""
    _refuse_absent(
        {
            "template.encryption_key": wanted.encryption_key,
            "template.encryption_key_revocation_action": wanted.encryption_key_revocation_action,
            "template.encryption_key_shutdown_duration": "encryption_key_shutdown_duration" in wanted,
            "template.service_mesh": "service_mesh" in wanted,
            "template.health_check_disabled": wanted.health_check_disabled,
            "template.node_selector": "node_selector" in wanted,
            "template.gpu_zonal_redundancy_disabled": "gpu_zonal_redundancy_disabled" in wanted,
        }
    )
    if any("secret" not in volume and "empty_dir" not in volume for volume in wanted.volumes):
        raise Refusal(Code.UNIMPLEMENTED, "template.volumes: the local cloud has volumes of type secret and empty_dir only.")
    if any(mount.sub_path for container in wanted.containers for mount in container.volume_mounts):
        raise Refusal(Code.UNIMPLEMENTED, "template.containers.volume_mounts: the local cloud mounts whole volumes, no sub_path.")
    if any(port.name == "h2c" for container in wanted.containers for port in container.ports):
        raise Refusal(Code.UNIMPLEMENTED, "template.containers[0].ports: the local cloud speaks HTTP/1.1 to containers, not h2c.")
    for index, container in enumerate(wanted.containers):
        where = f"template.containers[{index}]"
        _refuse_absent(
            {
                f"{where}.source_code": "source_code" in container,
                f"{where}.base_image_uri": container.base_image_uri,
                f"{where}.readiness_probe": "readiness_probe" in container,
                f"{where}.resources.limits[nvidia.com/gpu]": "nvidia.com/gpu" in container.resources.limits,
            }
        )


def _refuse_absent(fields: Mapping[str, object]) -> None:
    for path, given in fields.items():
        if given:
            raise Refusal(Code.UNIMPLEMENTED, f"{path}: the local cloud does not have this.")
