"""Refuses what the real service refuses, before anything is changed."""

import re
from collections.abc import Collection, Iterable, Mapping

from google.cloud import run_v2

from localcloud.sizes import cpu_count, memory_bytes
from localcloud.wire import Code, Refusal

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ENV_NAME = re.compile(r"[^=\0]+")
_SECRET = re.compile(r"(projects/[^/\s]+/secrets/)?[A-Za-z0-9_-]{1,255}")
_SECRET_VERSION = re.compile(r"[A-Za-z0-9_-]{1,63}")
_SYSTEM_PREFIXES = ("run.googleapis.com", "cloud.googleapis.com", "serving.knative.dev", "autoscaling.knative.dev")
_RESERVED_ENV = ("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION")
_CPUS = (1.0, 2.0, 4.0, 6.0, 8.0)
LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST


def invalid(message: str) -> Refusal:
    """An INVALID_ARGUMENT."""
    return Refusal(Code.INVALID_ARGUMENT, message)


def service_id(name: str) -> None:
    """[service.proto CreateServiceRequest.service_id]"""
    if not _LABEL.fullmatch(name) or len(name) >= 50:
        raise invalid(
            f"Invalid service id '{name}': it must begin with a letter, and contain only lower case letters, digits and hyphens, "
            "not end with a hyphen, and be shorter than 50 characters."
        )


def service(wanted: run_v2.Service, short_name: str) -> None:
    """Check a service after its defaults were filled in; traffic is checked by `traffic`."""
    if len(wanted.description) > 512:
        raise invalid("description: at most 512 characters.")
    metadata(wanted.labels, "labels")
    metadata(wanted.annotations, "annotations")
    template(wanted.template, short_name)


def metadata(pairs: Mapping[str, str], field: str) -> None:
    """[service.proto labels, annotations] System namespaces are refused in v2; the size is Kubernetes' limit for annotations."""
    for key in pairs:
        namespace = key.split("/", 1)[0] if "/" in key else ""
        if any(namespace == prefix or namespace.endswith("." + prefix) for prefix in _SYSTEM_PREFIXES):
            raise invalid(f"{field}: the key '{key}' is in a reserved namespace; use the corresponding field of the v2 API.")
    if sum(len(key) + len(value) for key, value in pairs.items()) > 256 * 1024:
        raise invalid(f"{field}: the total size is over 256 kB.")


def template(wanted: run_v2.RevisionTemplate, short_name: str) -> None:
    """Check a revision template."""
    if wanted.revision:
        revision_name(wanted.revision, short_name)
    metadata(wanted.labels, "template.labels")
    metadata(wanted.annotations, "template.annotations")
    if not wanted.containers:
        raise invalid("template.containers: at least one container is required.")
    _served_here(wanted)
    seconds = wanted.timeout.total_seconds()
    if not 1 <= seconds <= 3600:
        raise invalid(f"template.timeout: {seconds:g} s is not between 1 s and 3600 s.")
    if not 1 <= wanted.max_instance_request_concurrency <= 1000:
        raise invalid(f"template.max_instance_request_concurrency: {wanted.max_instance_request_concurrency} is not between 1 and 1000.")
    if wanted.scaling.min_instance_count < 0 or wanted.scaling.max_instance_count < max(wanted.scaling.min_instance_count, 1):
        raise invalid("template.scaling: max_instance_count must be at least 1 and not below min_instance_count.")
    for index, container in enumerate(wanted.containers):
        _container(container, f"template.containers[{index}]", index)
    cpu = cpu_count(wanted.containers[0].resources.limits["cpu"])
    if cpu is not None and cpu < 1 and wanted.max_instance_request_concurrency > 1:
        raise invalid(f"template.max_instance_request_concurrency: must be 1 with less than 1 CPU ({cpu:g}).")


def _served_here(wanted: run_v2.RevisionTemplate) -> None:
    """Refuse, rather than ignore, what this cloud cannot run."""
    if any("secret" not in volume and "empty_dir" not in volume for volume in wanted.volumes):
        raise Refusal(Code.UNIMPLEMENTED, "template.volumes: the local cloud has volumes of type secret and empty_dir only.")
    if any(mount.sub_path for container in wanted.containers for mount in container.volume_mounts):
        raise Refusal(Code.UNIMPLEMENTED, "template.containers.volume_mounts: the local cloud mounts whole volumes, no sub_path.")
    if any(port.name == "h2c" for container in wanted.containers for port in container.ports):
        raise Refusal(Code.UNIMPLEMENTED, "template.containers[0].ports: the local cloud speaks HTTP/1.1 to containers, not h2c.")


def revision_name(name: str, short_name: str) -> None:
    """[service.proto RevisionTemplate.revision; the prefix text is the real one]"""
    if not name.startswith(short_name + "-"):
        raise invalid("The revision name must be prefixed by the name of the enclosing Service with a trailing -")
    if not _LABEL.fullmatch(name) or len(name) > 63:
        raise invalid(
            f"Invalid revision name '{name}': it must contain only lower case letters, digits and hyphens, begin with a letter, "
            "not end with a hyphen, and be shorter than 64 characters."
        )


def _container(wanted: run_v2.Container, where: str, index: int) -> None:
    if not wanted.image:
        raise invalid(f"{where}.image: an image is required.")
    for port in wanted.ports:
        if not 1 <= port.container_port <= 65535 or port.name != "http1":
            raise invalid(f"{where}.ports: the port must be 1-65535 and its name http1 or h2c.")
    _environment(wanted.env, where, index)
    _limits(wanted.resources.limits, where)
    probe = wanted.startup_probe
    if "startup_probe" in wanted:
        if not (0 <= probe.initial_delay_seconds <= 240 and 1 <= probe.period_seconds <= 240 and 1 <= probe.timeout_seconds <= 240):
            raise invalid(f"{where}.startup_probe: initial_delay_seconds is 0-240, period_seconds and timeout_seconds are 1-240.")
        if probe.timeout_seconds > probe.period_seconds:
            raise invalid(f"{where}.startup_probe: timeout_seconds must not be greater than period_seconds.")


def _environment(variables: Iterable[run_v2.EnvVar], where: str, index: int) -> None:
    names = [variable.name for variable in variables]
    reserved = [name for name in names if name in _RESERVED_ENV]
    if reserved:
        raise invalid(
            f"spec.template.spec.containers[{index}].env: The following reserved env names were provided: {', '.join(reserved)}. "
            "These values are automatically set by the system."
        )
    for variable in variables:
        if not _ENV_NAME.fullmatch(variable.name) or len(variable.name) > 32768:
            raise invalid(f"{where}.env: '{variable.name[:80]}' is not a name of an environment variable.")
        if len(variable.value.encode()) > 32768:
            raise invalid(f"{where}.env[{variable.name}]: the value is longer than 32 KB.")
        if "value_source" in variable:
            _secret(variable.value_source.secret_key_ref, f"{where}.env[{variable.name}]")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise invalid(f"{where}.env: given more than once: {', '.join(twice)}.")


def _secret(wanted: run_v2.SecretKeySelector, where: str) -> None:
    """[https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets]"""
    if not wanted.secret:
        raise invalid(f"{where}: value_source needs secret_key_ref.secret.")
    if not _SECRET.fullmatch(wanted.secret):
        raise invalid(f"{where}: '{wanted.secret[:80]}' is not a secret: use NAME, or projects/PROJECT/secrets/NAME.")
    if wanted.version and not _SECRET_VERSION.fullmatch(wanted.version):
        raise invalid(f"{where}: '{wanted.version[:80]}' is not a version of a secret: use a number, an alias or latest.")


def _limits(limits: Mapping[str, str], where: str) -> None:
    unknown = sorted(set(limits) - {"cpu", "memory", "nvidia.com/gpu"})
    if unknown:
        raise invalid(f"{where}.resources.limits: {', '.join(unknown)} is not known; use cpu and memory.")
    cpu = cpu_count(limits["cpu"])
    if cpu is None or not (0.08 <= cpu < 1 or cpu in _CPUS):
        raise invalid(f"Invalid value specified for cpu. '{limits['cpu']}': use 0.08 to 1, or 1, 2, 4, 6, 8.")
    memory = memory_bytes(limits["memory"])
    if memory is None or not 128 * 2**20 <= memory <= 32 * 2**30:
        raise invalid(f"Invalid value specified for memory. '{limits['memory']}': use 128Mi to 32Gi.")
    least = {4.0: 2, 6.0: 4, 8.0: 4}.get(cpu, 0)
    if memory < least * 2**30:
        raise invalid(f"Invalid value specified for memory. For {cpu:g} CPU, at least {least}Gi; '{limits['memory']}' was given.")


def traffic(targets: Iterable[run_v2.TrafficTarget], known: Collection[str]) -> None:
    """[traffic_target.proto; Knative route_validation.go] `known` are the short names of revisions that exist or are about to."""
    total, tags = 0, set()
    for index, target in enumerate(targets):
        where = f"traffic[{index}]"
        if target.type_ == LATEST and target.revision:
            raise invalid(f"{where}: a target of type LATEST must not name a revision.")
        if target.type_ != LATEST and not target.revision:
            raise invalid(f"{where}: a revision, or the type LATEST, is required.")
        if target.revision and target.revision not in known:
            raise invalid(f"{where}: Revision '{target.revision}' does not exist.")  # [approximated]
        if not 0 <= target.percent <= 100:
            raise invalid(f"{where}: percent {target.percent} is not between 0 and 100.")
        total += target.percent
        if target.tag:
            if not _LABEL.fullmatch(target.tag) or len(target.tag) > 46:
                raise invalid(f"{where}: the tag '{target.tag}' must be lower case letters, digits and hyphens, and begin with a letter.")
            if target.tag in tags:
                raise invalid(f"{where}: Multiple definitions for tag '{target.tag}'.")
            tags.add(target.tag)
    if total != 100:
        raise invalid(f"Traffic targets sum to {total}, want 100")  # Knative's text; the service's own is not known
