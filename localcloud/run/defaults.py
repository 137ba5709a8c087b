"""What the service fills in where a client says nothing (google/cloud/run/v2/*.proto; values of real services, facts §3)."""

import datetime
from typing import Any

from google.api import launch_stage_pb2
from google.cloud import run_v2

from localcloud.naming import project_number
from localcloud.sizes import cpu_count
from localcloud.wire import to_pb

_Ingress: Any = run_v2.IngressTraffic
_Allocation: Any = run_v2.TrafficTargetAllocationType
_Egress: Any = run_v2.VpcAccess.VpcEgress
_LaunchStage: Any = launch_stage_pb2.LaunchStage


def fill_service(service: run_v2.Service) -> None:
    """Fill in a service's own fields and its template."""
    if not service.ingress:
        service.ingress = _Ingress.INGRESS_TRAFFIC_ALL
    if not service.launch_stage:
        service.launch_stage = _LaunchStage.Value("GA")
    if not service.traffic:
        latest = _Allocation.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
        service.traffic = [run_v2.TrafficTarget(type_=latest, percent=100)]
    for target in service.traffic:
        if not target.type_ and target.revision:
            target.type_ = _Allocation.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
    fill_template(service.template, service.name.split("/")[1])


def fill_template(template: run_v2.RevisionTemplate, project: str) -> None:
    """Fill in a revision template."""
    if not template.service_account:
        template.service_account = f"{project_number(project)}-compute@developer.gserviceaccount.com"
    timeout = to_pb(template).timeout  # the message itself: a Python duration cannot be as long as a client may say
    if not (timeout.seconds or timeout.nanos):
        template.timeout = datetime.timedelta(seconds=300)
    if not template.scaling.max_instance_count:
        template.scaling.max_instance_count = 100
    if "vpc_access" in template and not template.vpc_access.egress:
        template.vpc_access.egress = _Egress.PRIVATE_RANGES_ONLY
    for container in template.containers:
        _fill_container(container, serving=len(template.containers) == 1 or bool(container.ports))
    if not template.max_instance_request_concurrency:
        cpus = [cpu_count(container.resources.limits["cpu"]) for container in template.containers]
        total = sum(each if each is not None else 1 for each in cpus)
        template.max_instance_request_concurrency = 80 if total >= 1 or not cpus else 1


def _fill_container(container: run_v2.Container, *, serving: bool) -> None:
    limits = container.resources.limits
    if "cpu" not in limits and "memory" not in limits and not container.resources.cpu_idle:
        container.resources.cpu_idle = True  # only while nothing about the resources was said
    limits["cpu"] = limits.get("cpu", "1000m")
    limits["memory"] = limits.get("memory", "512Mi")
    if serving and not container.ports:
        container.ports = [run_v2.ContainerPort(name="http1", container_port=8080)]
    for port in container.ports:
        port.name = port.name or "http1"
        port.container_port = port.container_port or 8080
    exposed = container.ports[0].container_port if container.ports else 0
    if serving and "startup_probe" not in container:
        tcp = run_v2.TCPSocketAction(port=exposed)
        container.startup_probe = run_v2.Probe(timeout_seconds=240, period_seconds=240, failure_threshold=1, tcp_socket=tcp)
    for kind in ("startup_probe", "liveness_probe"):
        if kind in container:
            _fill_probe(getattr(container, kind), exposed)


def _fill_probe(probe: run_v2.Probe, port: int) -> None:
    """`port` is the one that the container exposes, 0 if it exposes none."""
    probe.timeout_seconds = probe.timeout_seconds or 1
    probe.period_seconds = probe.period_seconds or 10
    probe.failure_threshold = probe.failure_threshold or 3
    for kind in ("http_get", "tcp_socket", "grpc"):
        if kind in probe:
            action = getattr(probe, kind)
            action.port = action.port or port
    if "http_get" in probe:
        probe.http_get.path = probe.http_get.path or "/"
