"""A revision's template in the API's own messages: taken from what serves, changed by difference, and told as a Spec."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from google.cloud import run_v2

from relais.config import Deploy, Probe, SecretVersion, Vpc
from relais.errors import BadInput
from relais.model import Spec

_KEY = secrets.token_bytes(16)  # fingerprints compare within this process only: nobody can search for the value behind one
SHARED = (  # the fields that a Revision and a RevisionTemplate have in common and that a release keeps
    "labels", "scaling", "vpc_access", "timeout", "service_account", "containers", "volumes", "execution_environment", "encryption_key",
    "max_instance_request_concurrency", "service_mesh", "encryption_key_revocation_action", "encryption_key_shutdown_duration",
    "session_affinity", "node_selector", "gpu_zonal_redundancy_disabled",
)  # fmt: skip
OURS = "relais.dev/"
_RESERVED = ("run.googleapis.com/", "cloud.googleapis.com/", "serving.knative.dev/", "autoscaling.knative.dev/")
_EGRESS = {
    "private-ranges-only": run_v2.VpcAccess.VpcEgress.PRIVATE_RANGES_ONLY,
    "all-traffic": run_v2.VpcAccess.VpcEgress.ALL_TRAFFIC,
}
_EXECUTION: dict[str, Any] = {
    "gen1": run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN1,
    "gen2": run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2,
}


def template_of(revision: run_v2.Revision) -> run_v2.RevisionTemplate:
    """The template that would make this revision again, without its name and without stamps of earlier releases."""
    made = run_v2.RevisionTemplate.pb(run_v2.RevisionTemplate())
    for field, value in run_v2.Revision.pb(revision).ListFields():
        if field.name not in SHARED:
            continue
        if field.is_repeated:
            getattr(made, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(value)
        else:
            setattr(made, field.name, value)
    template: run_v2.RevisionTemplate = run_v2.RevisionTemplate.wrap(made)
    template.labels = _kept(revision.labels)
    template.annotations = _kept(revision.annotations)
    return template


def _kept(pairs: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in pairs.items() if not name.startswith((*_RESERVED, OURS))}


def changed(base: run_v2.RevisionTemplate | None, deploy: Deploy, env: Mapping[str, str], image: str) -> run_v2.RevisionTemplate:
    """`base` with what the release file asks; everything that it does not name stays as it serves."""
    template = _copied(base) if base is not None else run_v2.RevisionTemplate(containers=[run_v2.Container()])
    container = _container(template, deploy.container)
    container.image = image
    _environment(container, env, deploy.secrets)
    _limits(container, deploy)
    if deploy.command is not None:
        container.command = list(deploy.command)
    if deploy.args is not None:
        container.args = list(deploy.args)
    if deploy.port is not None:
        container.ports = [run_v2.ContainerPort(container_port=deploy.port)]
    if deploy.probes.startup:
        container.startup_probe = _probe(deploy.probes.startup)
    if deploy.probes.liveness:
        container.liveness_probe = _probe(deploy.probes.liveness)
    _revision_settings(template, deploy)
    _volumes(template, container, deploy)
    return template


def _copied(template: run_v2.RevisionTemplate) -> run_v2.RevisionTemplate:
    """A copy that shares nothing (proto-plus messages with maps cannot be deep-copied)."""
    made: run_v2.RevisionTemplate = run_v2.RevisionTemplate.deserialize(run_v2.RevisionTemplate.serialize(template))
    return made


def _revision_settings(template: run_v2.RevisionTemplate, deploy: Deploy) -> None:
    if deploy.timeout is not None:
        template.timeout = deploy.timeout
    if deploy.max_instances is not None:
        template.scaling.max_instance_count = deploy.max_instances
    if deploy.min_instances is not None:
        template.scaling.min_instance_count = deploy.min_instances
    if deploy.concurrency is not None:
        template.max_instance_request_concurrency = deploy.concurrency
    if deploy.service_account is not None:
        template.service_account = deploy.service_account
    if deploy.session_affinity is not None:
        template.session_affinity = deploy.session_affinity
    if deploy.execution_environment is not None:
        template.execution_environment = _EXECUTION[deploy.execution_environment]
    if deploy.vpc is not None:
        template.vpc_access = _vpc(deploy.vpc)
    template.labels = {**template.labels, **deploy.labels}


def _container(template: run_v2.RevisionTemplate, name: str | None) -> run_v2.Container:
    containers = list(template.containers)
    if name is not None:
        found = next((c for c in containers if c.name == name), None)
        if found is None:
            named = ", ".join(c.name or "(unnamed)" for c in containers)
            raise BadInput(f"there is no container {name}", where="deploy.container", remedy=f"name one of: {named}")
        return found
    return next((c for c in containers if c.ports), containers[0])


def _environment(container: run_v2.Container, env: Mapping[str, str], references: Mapping[str, SecretVersion]) -> None:
    wanted = {name: run_v2.EnvVar(name=name, value=value) for name, value in env.items()}
    for name, reference in references.items():
        selector = run_v2.SecretKeySelector(secret=reference.secret, version=reference.version)
        wanted[name] = run_v2.EnvVar(name=name, value_source=run_v2.EnvVarSource(secret_key_ref=selector))
    merged = [wanted.pop(var.name, var) for var in container.env]
    container.env = [*merged, *wanted.values()]


def _limits(container: run_v2.Container, deploy: Deploy) -> None:
    fresh = "resources" not in container
    limits = dict(container.resources.limits)
    if deploy.memory is not None:
        limits["memory"] = str(deploy.memory)
    if deploy.cpu is not None:
        limits["cpu"] = str(deploy.cpu)
    if limits:
        container.resources.limits = limits
    if deploy.cpu_always is not None:
        container.resources.cpu_idle = not deploy.cpu_always
    elif fresh and limits:
        container.resources.cpu_idle = True  # the API's own default holds only while `resources` is not set at all
    if deploy.cpu_boost is not None:
        container.resources.startup_cpu_boost = deploy.cpu_boost


def _probe(probe: Probe) -> run_v2.Probe:
    made = run_v2.Probe(
        initial_delay_seconds=_seconds(probe.initial_delay),
        period_seconds=_seconds(probe.period),
        timeout_seconds=_seconds(probe.timeout),
        failure_threshold=probe.failures,
    )
    port = probe.port or 0
    if probe.get is not None:
        made.http_get = run_v2.HTTPGetAction(path=probe.get, port=port)
    elif probe.grpc:
        made.grpc = run_v2.GRPCAction(port=port)
    else:
        made.tcp_socket = run_v2.TCPSocketAction(port=port)
    return made


def _seconds(span: timedelta) -> int:
    return round(span.total_seconds())


def _vpc(vpc: Vpc) -> run_v2.VpcAccess:
    access = run_v2.VpcAccess(egress=_EGRESS[vpc.egress])
    if vpc.connector:
        access.connector = vpc.connector
    else:
        access.network_interfaces = [
            run_v2.VpcAccess.NetworkInterface(network=vpc.network or "", subnetwork=vpc.subnet or "", tags=list(vpc.tags))
        ]
    return access


def _volumes(template: run_v2.RevisionTemplate, container: run_v2.Container, deploy: Deploy) -> None:
    volumes = {volume.name: volume for volume in template.volumes}
    mounts = {mount.name: mount for mount in container.volume_mounts}
    if deploy.cloudsql is not None:
        volumes["cloudsql"] = run_v2.Volume(name="cloudsql", cloud_sql_instance=run_v2.CloudSqlInstance(instances=list(deploy.cloudsql)))
        mounts["cloudsql"] = run_v2.VolumeMount(name="cloudsql", mount_path="/cloudsql")
    for wanted in deploy.volumes or ():
        made = run_v2.Volume(name=wanted.name)
        if wanted.secret:
            item = run_v2.VersionToPath(path=wanted.secret.secret.rpartition("/")[2], version=wanted.secret.version)
            made.secret = run_v2.SecretVolumeSource(secret=wanted.secret.secret, items=[item])
        elif wanted.bucket:
            made.gcs = run_v2.GCSVolumeSource(bucket=wanted.bucket, read_only=wanted.read_only)
        elif wanted.nfs:
            server, _, path = wanted.nfs.partition(":")
            made.nfs = run_v2.NFSVolumeSource(server=server, path=path, read_only=wanted.read_only)
        else:
            made.empty_dir = run_v2.EmptyDirVolumeSource(
                medium=run_v2.EmptyDirVolumeSource.Medium.MEMORY, size_limit=str(wanted.memory or "")
            )
        volumes[wanted.name] = made
        mounts[wanted.name] = run_v2.VolumeMount(name=wanted.name, mount_path=wanted.mount)
    template.volumes = list(volumes.values())
    container.volume_mounts = list(mounts.values())


# -- told ------------------------------------------------------------------------------------------------------------------


def spec_of(template: run_v2.RevisionTemplate, *, container: str | None = None, plain: tuple[str, ...] = ()) -> Spec:
    """The template as the plan compares it: env by fingerprint (plain names by value too), secrets by reference, settings as texts."""
    main = _container(template, container)
    env = {var.name: var.value for var in main.env if "value_source" not in var}
    return Spec(
        image=main.image,
        env={name: _fingerprint(value) for name, value in env.items()},
        plain={name: value for name, value in env.items() if name in plain},
        secrets={
            var.name: f"{var.value_source.secret_key_ref.secret}:{var.value_source.secret_key_ref.version}"
            for var in main.env
            if "value_source" in var
        },
        settings=_settings(template, main),
    )


def _fingerprint(value: str) -> str:
    return hashlib.blake2b(value.encode(), key=_KEY, digest_size=8).hexdigest()


def _settings(template: run_v2.RevisionTemplate, main: run_v2.Container) -> dict[str, str]:
    limits = main.resources.limits
    timeout: Any = template.timeout
    found: dict[str, Any] = {
        "memory": limits.get("memory", ""),
        "cpu": limits.get("cpu", ""),
        "timeout": f"{timeout.total_seconds():g}s" if timeout else "",
        "concurrency": template.max_instance_request_concurrency or "",
        "min_instances": template.scaling.min_instance_count or "",
        "max_instances": template.scaling.max_instance_count or "",
        "service_account": template.service_account,
        "command": " ".join(main.command),
        "args": f"{len(main.args)} arguments" if main.args else "",
        "port": main.ports[0].container_port if main.ports else "",
        "execution_environment": next((word for word, value in _EXECUTION.items() if value == template.execution_environment), ""),
        "session_affinity": template.session_affinity or "",
        "cpu_always": "" if main.resources.cpu_idle else True,
        "cpu_boost": main.resources.startup_cpu_boost or "",
        "startup probe": _shown(main.startup_probe) if "startup_probe" in main else "",
        "liveness probe": _shown(main.liveness_probe) if "liveness_probe" in main else "",
        "vpc": _shown(template.vpc_access) if "vpc_access" in template else "",
        "volumes": ", ".join(v.name for v in template.volumes),
        "labels": ", ".join(f"{k}={v}" for k, v in sorted(template.labels.items())),
        "containers": len(template.containers) if len(template.containers) > 1 else "",
    }
    return {name: str(value) for name, value in found.items() if value != ""}


def _shown(message: Any) -> str:
    as_dict: dict[str, Any] = type(message).to_dict(message, always_print_fields_with_no_presence=False)
    for header in as_dict.get("http_get", {}).get("http_headers", ()):  # a probe may carry a token
        header["value"] = _fingerprint(header.get("value", ""))
    return ", ".join(f"{key}={value}" for key, value in as_dict.items())
