"""The rules for a template's containers: names, order, ports, environment, probes, volumes (k8s_min.proto)."""

import posixpath
import re
from collections.abc import Iterable

from google.cloud import run_v2

from localcloud.run import resources
from localcloud.run.violations import Malformed, invalid

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"([\w.-]+(:\d+)?/)?[\w.-]+(/[\w.-]+)*(:[\w.-]+)?(@\w+:[0-9a-f]+)?", re.ASCII)
_ENV_NAME = re.compile(r"[^=\0]+")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_PATH = re.compile(r"/[^\x00-\x20\x7f]*")
_SECRET = re.compile(r"(projects/[^/\s]+/secrets/)?[A-Za-z0-9_-]{1,255}")
_SECRET_VERSION = re.compile(r"[A-Za-z0-9_-]{1,63}")
_RESERVED_ENV = ("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION")
_SYSTEM_PATH = re.compile(r"/+((proc|sys|dev)(/.*)?)?")  # [run/docs/configuring/services/in-memory-volume-mounts]
_MOST_WORDS = 1000  # arguments, and variables, of a container [https://cloud.google.com/run/quotas]
_MOST = 10  # containers in an instance [https://cloud.google.com/run/docs/deploying#sidecars]


def check(template: run_v2.RevisionTemplate) -> None:
    """Check all containers of a template, and its volumes."""
    found = template.containers
    if len(found) > _MOST:
        raise Malformed("template.containers", f"{len(found)} containers; at most {_MOST} are allowed.")  # [approximated]
    for index, container in enumerate(found):
        _container(container, f"template.containers[{index}]", index)
    if len(found) > 1 or any(container.depends_on for container in found):
        _together(found)
    _volumes(template)
    resources.check(template)


def _container(wanted: run_v2.Container, where: str, index: int) -> None:
    if not _IMAGE.fullmatch(wanted.image):
        raise Malformed(f"{where}.image", "must be a container image path in the form [hostname/]repo-path[:tag and/or @digest]")
    if wanted.name and not _DNS_LABEL.fullmatch(wanted.name):
        raise Malformed(f"{where}.name", f"'{wanted.name[:80]}' must be a DNS label (RFC 1123).")  # [approximated]
    if len(wanted.ports) > 1:
        raise Malformed(f"{where}.ports", "ports should contain 0 or 1 port.")
    for port in wanted.ports:
        if not 1 <= port.container_port <= 65535 or port.name not in ("http1", "h2c"):
            raise Malformed(f"{where}.ports[0]", "the port must be 1-65535 and its name http1 or h2c.")  # [approximated]
    _environment(wanted.env, where, index)
    if wanted.working_dir and (not wanted.working_dir.startswith("/") or "\0" in wanted.working_dir):
        raise Malformed(f"{where}.working_dir", "must be an absolute path.")  # [approximated]
    if len(wanted.args) > _MOST_WORDS:
        raise Malformed(f"{where}.args", f"{len(wanted.args)} arguments; at most {_MOST_WORDS} are allowed.")  # [approximated]
    if any("\0" in word for word in (*wanted.command, *wanted.args)):
        raise Malformed(f"{where}.args", "command and args must not contain NUL characters.")  # [approximated]
    if "startup_probe" in wanted:
        _probe(wanted.startup_probe, f"{where}.startup_probe", longest=240)
    if "liveness_probe" in wanted:
        _probe(wanted.liveness_probe, f"{where}.liveness_probe", longest=3600)


def _together(found: Iterable[run_v2.Container]) -> None:
    """What several containers of one instance are to each other."""
    containers = list(found)
    if sum(bool(each.ports) for each in containers) != 1:
        raise invalid("template.containers: Revision template should contain exactly one container with an exposed port.")
    by_name = {each.name: each for each in containers}
    if (len(containers) > 1 and "" in by_name) or len(by_name) < len(containers):
        raise invalid("template.containers: Every container must have a name of its own.")  # [approximated]
    for index, container in enumerate(containers):
        where = f"template.containers[{index}].depends_on"
        for other in container.depends_on:
            if other not in by_name or other == container.name:
                raise invalid(f"{where}: '{other}' is not the name of another container.")  # [approximated]
            if "startup_probe" not in by_name[other]:
                raise invalid(f"{where}: Dependent container '{other}' must have startup probe specified")
    order: set[str] = set()
    while ready := [each.name for each in containers if each.name not in order and order.issuperset(each.depends_on)]:
        order.update(ready)
    if len(order) < len(containers):
        circle = ", ".join(sorted(set(by_name) - order))
        raise invalid(f"template.containers: depends_on goes round in a circle: {circle}.")  # [approximated]


def _environment(variables: Iterable[run_v2.EnvVar], where: str, index: int) -> None:
    names = [variable.name for variable in variables]
    if len(names) > _MOST_WORDS:
        raise Malformed(f"{where}.env", f"{len(names)} variables; at most {_MOST_WORDS} are allowed.")  # [approximated]
    reserved = [name for name in names if name in _RESERVED_ENV]
    if reserved:
        raise invalid(
            f"template.containers[{index}].env: The following reserved env names were provided: {', '.join(reserved)}. "
            "These values are automatically set by the system."
        )
    for variable in variables:
        if not _ENV_NAME.fullmatch(variable.name) or len(variable.name) > 32768:
            raise Malformed(f"{where}.env", f"'{variable.name[:80]}' is not a name of an environment variable.")  # [approximated]
        if len(variable.value.encode()) > 32768:
            raise Malformed(f"{where}.env[{variable.name}]", "the value is longer than 32 KB.")  # [approximated]
        if "\0" in variable.value:
            raise Malformed(f"{where}.env[{variable.name}]", "the value must not contain NUL characters.")  # [approximated]
        if "value_source" in variable:
            source = variable.value_source.secret_key_ref
            _secret(source.secret, source.version, f"{where}.env[{variable.name}]")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Malformed(f"{where}.env", f"given more than once: {', '.join(twice)}.")  # [approximated]


def _secret(secret: str, version: str, where: str) -> None:
    """[https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets; texts approximated]"""
    if not secret:
        raise Malformed(where, "the name of a secret is required.")
    if not _SECRET.fullmatch(secret):
        raise Malformed(where, f"'{secret[:80]}' is not a secret: use NAME, or projects/PROJECT/secrets/NAME.")
    if version and not _SECRET_VERSION.fullmatch(version):
        raise Malformed(where, f"'{version[:80]}' is not a version of a secret: use a number, an alias or latest.")


def _probe(wanted: run_v2.Probe, where: str, longest: int) -> None:
    """[k8s_min.proto Probe; texts approximated]"""
    if not 0 <= wanted.initial_delay_seconds <= longest:
        raise Malformed(f"{where}.initial_delay_seconds", f"must be between 0 and {longest}.")
    if not 1 <= wanted.period_seconds <= longest:
        raise Malformed(f"{where}.period_seconds", f"must be between 1 and {longest}.")
    if not 1 <= wanted.timeout_seconds <= longest:
        raise Malformed(f"{where}.timeout_seconds", f"must be between 1 and {longest}.")
    if wanted.timeout_seconds > wanted.period_seconds:
        raise Malformed(f"{where}.timeout_seconds", "must not be greater than period_seconds.")
    if wanted.failure_threshold < 1:
        raise Malformed(f"{where}.failure_threshold", "must be greater or equal than 1.")
    actions = [each for each in ("http_get", "tcp_socket", "grpc") if each in wanted]
    if not actions:
        raise Malformed(where, "exactly one of http_get, tcp_socket and grpc is required.")
    action = getattr(wanted, actions[0])
    if not 1 <= action.port <= 65535:
        raise Malformed(f"{where}.{actions[0]}.port", "must be between 1 and 65535.")
    if "http_get" in wanted:
        if not _PATH.fullmatch(wanted.http_get.path):
            raise Malformed(f"{where}.http_get.path", "must begin with /, and contain no white space.")
        if not all(_HEADER.fullmatch(each.name) and _HEADER_VALUE.fullmatch(each.value) for each in wanted.http_get.http_headers):
            raise Malformed(f"{where}.http_get.http_headers", "a header needs a name of letters, digits and -, and a value of one line.")


def _volumes(template: run_v2.RevisionTemplate) -> None:
    """[k8s_min.proto Volume, VolumeMount; texts approximated]"""
    names = [volume.name for volume in template.volumes]
    for index, volume in enumerate(template.volumes):
        where = f"template.volumes[{index}]"
        if not _DNS_LABEL.fullmatch(volume.name) or names.count(volume.name) > 1:
            raise Malformed(f"{where}.name", f"'{volume.name[:80]}' must be a DNS label that no other volume has.")
        if "secret" in volume:
            _secret_volume(volume.secret, f"{where}.secret")
        elif "empty_dir" in volume:
            resources.room(volume.empty_dir.size_limit, f"{where}.empty_dir.size_limit")
            if volume.empty_dir.medium not in list(run_v2.EmptyDirVolumeSource.Medium):
                raise Malformed(f"{where}.empty_dir.medium", f"{int(volume.empty_dir.medium)} is not a known value.")
        elif not any(kind in volume for kind in ("cloud_sql_instance", "nfs", "gcs")):
            raise Malformed(where, "a kind of volume is required.")
    for index, container in enumerate(template.containers):
        _mounts(container.volume_mounts, names, f"template.containers[{index}].volume_mounts")


def _secret_volume(wanted: run_v2.SecretVolumeSource, where: str) -> None:
    _secret(wanted.secret, "", where)
    if not 0 <= wanted.default_mode <= 0o777:
        raise Malformed(f"{where}.default_mode", "must be between 0000 and 0777.")
    for number, item in enumerate(wanted.items):
        _secret(wanted.secret, item.version, f"{where}.items[{number}].version")
        if not item.version or not item.path or item.path.startswith("/") or ".." in item.path.split("/"):
            raise Malformed(f"{where}.items[{number}]", "a version, and a relative path without .., are required.")
        if not 0 <= item.mode <= 0o777:
            raise Malformed(f"{where}.items[{number}].mode", "must be between 0000 and 0777.")


def _mounts(mounts: Iterable[run_v2.VolumeMount], volumes: list[str], where: str) -> None:
    paths = [mount.mount_path for mount in mounts]
    for index, mount in enumerate(mounts):
        if mount.name not in volumes:
            raise Malformed(f"{where}[{index}].name", f"'{mount.name[:80]}' is not the name of a volume.")
        if not mount.mount_path.startswith("/") or ":" in mount.mount_path or paths.count(mount.mount_path) > 1:
            raise Malformed(f"{where}[{index}].mount_path", "must be an absolute path without ':' that no other mount has.")
        if "\0" in mount.mount_path or _SYSTEM_PATH.fullmatch(posixpath.normpath(mount.mount_path)):
            raise Malformed(f"{where}[{index}].mount_path", "must not be /, nor /dev, /proc or /sys, nor below them.")
        if mount.sub_path.startswith("/") or ".." in mount.sub_path.split("/"):
            raise Malformed(f"{where}[{index}].sub_path", "must be a relative path without '..'.")
