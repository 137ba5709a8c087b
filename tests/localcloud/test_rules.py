"""What a service must be like: each broken rule in the words of its refusal, without a server."""

import datetime
from typing import Any

import pytest
from clouds import latest, pinned
from google.cloud import run_v2

from localcloud.run import defaults, validation
from localcloud.run.violations import Malformed
from localcloud.wire import Refusal

IMAGE = "registry/p/app:t1"
NAME = "projects/p/locations/r/services/app"


def service(template: dict[str, Any] | None = None, container: dict[str, Any] | None = None, **values: Any) -> run_v2.Service:
    """A service as it is checked: complete with its defaults."""
    template = {"containers": [{"image": IMAGE, **(container or {})}], **(template or {})}
    made = run_v2.Service(name=NAME, template=template, **values)
    defaults.fill_service(made)
    return made


def refusal(wanted: run_v2.Service) -> str:
    """What a CreateServiceRequest with this service is answered ("" if it is accepted)."""
    try:
        validation.service(wanted, "app")
        validation.traffic(wanted.traffic, "app")
    except Malformed as malformed:
        return malformed.within("CreateServiceRequest").message
    except Refusal as refused:
        return f"{refused.code.name} {refused.message}"
    return ""


def limits(cpu: str = "1", memory: str = "512Mi", **more: Any) -> dict[str, Any]:
    return {"resources": {"limits": {"cpu": cpu, "memory": memory}, "cpu_idle": True, **more}}


def probe(**values: Any) -> dict[str, Any]:
    return {"startup_probe": {"tcp_socket": {"port": 8080}, **values}}


def several(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"containers": [{"image": IMAGE, **limits(), **each} for each in containers]}


def mounted(*volumes: dict[str, Any], **mount: Any) -> dict[str, Any]:
    return {"volumes": list(volumes), "containers": [{"image": IMAGE, "volume_mounts": [mount] if mount else []}]}


def asking(path: str, value: str = "") -> dict[str, Any]:
    return {"startup_probe": {"http_get": {"path": path, "http_headers": [{"name": "a", "value": value}]}}}


def lasting(seconds: int) -> run_v2.Service:
    """With a time limit that no Python duration can hold."""
    made = run_v2.Service(name=NAME, template={"containers": [{"image": IMAGE}]})
    run_v2.Service.pb(made).template.timeout.seconds = seconds
    defaults.fill_service(made)
    return made


MEMORY: dict[str, Any] = {"name": "m", "empty_dir": {}}
FRONT: dict[str, Any] = {"name": "front", "ports": [{"container_port": 8080}]}
SIDE: dict[str, Any] = {"name": "side"}
CHECKED: dict[str, Any] = {"startup_probe": {"tcp_socket": {"port": 9000}}}

REAL = [  # texts that public reports quote from the real service
    pytest.param(service(container={"image": "https://x/y"}), "image: must be a container image path in the form", id="image"),
    pytest.param(service({"timeout": datetime.timedelta(hours=2)}), "template.timeout: maximum allowed time is one hour.", id="timeout"),
    pytest.param(
        service(container={"ports": [{"container_port": 1}, {"container_port": 2}]}),
        "Violation in CreateServiceRequest.service.template.containers[0].ports: ports should contain 0 or 1 port.",
        id="two ports",
    ),
    pytest.param(
        service({"scaling": {"min_instance_count": 3, "max_instance_count": 2}}),
        "service.template.scaling.max_instance_count: must be greater or equal than min_instance_count.",
        id="minimum over maximum",
    ),
    pytest.param(
        service(several(FRONT, {**SIDE, "ports": [{"container_port": 1}]})),
        "template.containers: Revision template should contain exactly one container with an exposed port.",
        id="two containers with ports",
    ),
    pytest.param(
        service(several({**FRONT, "depends_on": ["side"]}, SIDE)),
        "template.containers[0].depends_on: Dependent container 'side' must have startup probe specified",
        id="a container that others wait for, without a probe",
    ),
    pytest.param(
        service({"max_instance_request_concurrency": 5, "containers": [{"image": IMAGE, **limits(cpu="500m")}]}),
        "template.containers.resources.limits.cpu: Invalid value specified for cpu. "
        "Total cpu < 1 is not supported with concurrency > 1.",
        id="half a cpu, five requests at a time",
    ),
    pytest.param(
        service(container=limits(memory="8Gi")),
        "template.containers.resources.limits.memory: Invalid value specified for memory. "
        "For 1.0 CPU, memory must be between 128Mi and 4Gi inclusive.",
        id="8 GiB for one cpu",
    ),
    pytest.param(
        service({"execution_environment": 2, "containers": [{"image": IMAGE, **limits(memory="256Mi")}]}),
        "Invalid value specified for memory with gen2 execution environment. For 1.0 CPU, memory must be between 512Mi and 4Gi inclusive.",
        id="256 MiB in the second generation",
    ),
    pytest.param(
        service(container={"env": [{"name": "PORT", "value": "1"}]}),
        "env: The following reserved env names were provided: PORT. These values are automatically set by the system.",
        id="PORT",
    ),
    pytest.param(
        service(traffic=[latest(100, "a" * 44)]),
        f"traffic.tag: traffic tag '{'a' * 44}' and service name 'app' together are too long. "
        "Combined traffic tag and service name cannot exceed 46 characters.",
        id="a long tag",
    ),
    pytest.param(
        service({"revision": "other-1"}),
        "The revision name must be prefixed by the name of the enclosing Service with a trailing -",
        id="a foreign revision name",
    ),
]

OURS = [
    pytest.param(service(description="x" * 513), "description: at most 512", id="description"),
    pytest.param(service(labels={"Team": "a"}), "labels: the key 'Team'", id="label in capitals"),
    pytest.param(service(labels={"team": "a.b"}), "labels: the value of 'team'", id="label value with a dot"),
    pytest.param(service(labels={f"k{i}": "" for i in range(65)}), "65 labels", id="65 labels"),
    pytest.param(service({"labels": {"run.googleapis.com/x": "1"}}), "template.labels: the key", id="reserved label"),
    pytest.param(service(annotations={"cloud.googleapis.com/x": "1"}), "annotations: the key", id="reserved annotation"),
    pytest.param(service(annotations={"a b": "1"}), "annotations: the key 'a b'", id="annotation with a space"),
    pytest.param(service(annotations={"a": "x" * 2**18}), "over 256 kB", id="annotations of 256 kB"),
    pytest.param(service(launch_stage=1), "launch_stage: must be", id="launch stage"),
    pytest.param(service(custom_audiences=["a", "a"]), "custom_audiences", id="an audience twice"),
    pytest.param(service(binary_authorization={"policy": "x"}), "binary_authorization.policy", id="policy"),
    pytest.param(service(binary_authorization={"breakglass_justification": "x"}), "must be empty if use_default", id="breakglass"),
    pytest.param(service(scaling={"min_instance_count": 2, "max_instance_count": 1}), "service.scaling.max_instance", id="service scaling"),
    pytest.param(service({"service_account": "me"}), "service_account", id="service account"),
    pytest.param(service({"vpc_access": {"connector": "a b"}}), "vpc_access.connector", id="connector"),
    pytest.param(service({"vpc_access": {"network_interfaces": [{}]}}), "network or subnetwork", id="network"),
    pytest.param(service({"max_instance_request_concurrency": 1001}), "between 0 and 1000", id="concurrency"),
    pytest.param(service({"revision": "app-" + "a" * 60}), "shorter than 64", id="long revision name"),
    pytest.param(lasting(2**62), "template.timeout: maximum allowed time is one hour.", id="a time limit beyond all numbers"),
    pytest.param(lasting(-(2**62)), "template.timeout: must be greater than zero.", id="a time limit below all numbers"),
    pytest.param(service(labels={"\u00c9t\u00e9": ""}), "labels: the key", id="label in capitals of another alphabet"),
    pytest.param(service(container={"name": "A"}), "must be a DNS label", id="container name"),
    pytest.param(service(container={"depends_on": ["x"]}), "depends_on: 'x' is not the name", id="a container that waits for nobody"),
    pytest.param(service(container={"working_dir": "app"}), "working_dir: must be an absolute path", id="working directory"),
    pytest.param(service(container={"args": ["a"] * 1001}), "1001 arguments; at most 1000", id="a thousand arguments and one"),
    pytest.param(service(container={"env": [{"name": f"A{i}"} for i in range(1001)]}), "1001 variables", id="a variable too many"),
    pytest.param(service(container={"args": ["a\0"]}), "must not contain NUL", id="an argument with a NUL"),
    pytest.param(service(container={"env": [{"name": "A", "value": "a\0"}]}), "must not contain NUL", id="a value with a NUL"),
    pytest.param(service(mounted(MEMORY, name="m", mount_path="/a/../")), "mount_path: must not be /", id="a mount over everything"),
    pytest.param(service(mounted(MEMORY, name="m", mount_path="/proc/x")), "nor below them", id="a mount in /proc"),
    pytest.param(service(mounted({"name": "m", "empty_dir": {"medium": 5}})), "medium: 5 is not a known value", id="medium"),
    pytest.param(service(container=asking("/a b")), "http_get.path: must begin with /, and contain no white space", id="path with a space"),
    pytest.param(service(container=asking("/", "b\r\nc: d")), "a value of one line", id="a header in a header"),
    pytest.param(service(container={"env": [{"name": "A"}, {"name": "A"}]}), "more than once: A", id="variable twice"),
    pytest.param(service(container={"env": [{"name": "A", "value": "x" * 32769}]}), "longer than 32 KB", id="long variable"),
    pytest.param(service(container={"env": [{"name": "A=B"}]}), "'A=B' is not a name", id="variable's name"),
    pytest.param(service(container=limits(cpu="3")), "Invalid value specified for cpu. '3'", id="three cpus"),
    pytest.param(service(container=limits(cpu="4")), "For 4.0 CPU, memory must be between 2Gi and 16Gi", id="four cpus, little memory"),
    pytest.param(service(container=limits(cpu="0.05")), "Total cpu must be between 0.08 and 8", id="a twentieth of a cpu"),
    pytest.param(service(container=limits(cpu="0.3", memory="1Gi")), "between 128Mi and 512Mi", id="a third of a cpu, much memory"),
    pytest.param(service(container=limits(cpu="0.5", cpu_idle=False)), "cpu always allocated", id="half a cpu, always"),
    pytest.param(service(container={"resources": {"limits": {"disk": "1"}}}), "disk is not known", id="unknown resource"),
    pytest.param(service(several(FRONT, limits(cpu="8", memory="16Gi") | SIDE)), "Total cpu", id="nine cpus in all"),
    pytest.param(service(container=probe(period_seconds=241)), "startup_probe.period_seconds: must be between 1 and 240", id="period"),
    pytest.param(service(container=probe(timeout_seconds=20)), "timeout_seconds: must not be greater than period", id="probe timeout"),
    pytest.param(service(container=probe(initial_delay_seconds=241)), "initial_delay_seconds: must be between 0 and 240", id="delay"),
    pytest.param(service(container={"startup_probe": {"period_seconds": 5}}), "exactly one of http_get", id="a probe of nothing"),
    pytest.param(service(container={"startup_probe": {"http_get": {"path": "x"}}}), "http_get.path: must begin with /", id="path"),
    pytest.param(service(container={"liveness_probe": {"grpc": {}, "period_seconds": 3601}}), "1 and 3600", id="liveness period"),
    pytest.param(service(several(FRONT, FRONT | {"ports": []})), "a name of its own", id="two containers of one name"),
    pytest.param(service(several(FRONT, {**SIDE, "depends_on": ["none"]})), "'none' is not the name", id="depends on nobody"),
    pytest.param(
        service(several({**FRONT, **CHECKED, "depends_on": ["side"]}, {**SIDE, **CHECKED, "depends_on": ["front"]})),
        "round in a circle: front, side",
        id="each waits for the other",
    ),
    pytest.param(service(mounted({"name": "v", "empty_dir": {}}, name="w", mount_path="/w")), "'w' is not the name", id="no such volume"),
    pytest.param(service(mounted({"name": "v", "empty_dir": {}}, name="v", mount_path="w")), "an absolute path", id="relative mount"),
    pytest.param(service(mounted({"name": "v"})), "a kind of volume", id="a volume of nothing"),
    pytest.param(service(mounted({"name": "v", "empty_dir": {"size_limit": "much"}})), "'much' is not a quantity", id="size of a volume"),
    pytest.param(service(mounted({"name": "v", "secret": {"secret": "../x"}})), "is not a secret", id="secret of a volume"),
    pytest.param(
        service(mounted({"name": "v", "secret": {"secret": "x", "items": [{"path": "../x", "version": "1"}]}})), "without ..", id="path"
    ),
    pytest.param(service(traffic=[latest(90)]), "Traffic targets sum to 90, want 100", id="sum"),
    pytest.param(service(traffic=[latest(100, "a"), latest(0, "a")]), "Multiple definitions for tag 'a'", id="tag twice"),
    pytest.param(service(traffic=[latest(100, "A")]), "the tag 'A' must be", id="tag in capitals"),
    pytest.param(service(traffic=[pinned("app-1", -1), latest(101)]), "traffic[0].percent: -1 is not", id="negative percent"),
    pytest.param(service(traffic=[run_v2.TrafficTarget(type_=1, revision="app-1", percent=100)]), "must be empty if", id="latest, named"),
    pytest.param(service(traffic=[run_v2.TrafficTarget(percent=100)]), "a revision, or the type", id="no target"),
    pytest.param(service(traffic=[pinned(f"{NAME}/revisions/app-1", 100)]), "must be the short name", id="long revision name in traffic"),
]


@pytest.mark.parametrize(("wanted", "text"), [*REAL, *OURS])
def test_a_broken_rule_is_told_in_its_words(wanted: run_v2.Service, text: str) -> None:
    told = refusal(wanted)
    assert text in told
    assert told.startswith(("INVALID_ARGUMENT ", "Violation in CreateServiceRequest.service."))


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(service(), id="the least"),
        pytest.param(service(container=limits(cpu="0.08", memory="128Mi")), id="the smallest, one request at a time"),
        pytest.param(service(container=limits(cpu="8", memory="32Gi")), id="the largest"),
        pytest.param(service({"scaling": {"min_instance_count": 100}}), id="as many at the least as at the most"),
        pytest.param(service(several({**FRONT, "depends_on": ["side"]}, {**SIDE, **CHECKED})), id="a sidecar that starts first"),
        pytest.param(service(labels={"équipe": "a_b-1", "x": ""}, annotations={"a.b/c_d": "", "e": "F g"}), id="labels and annotations"),
        pytest.param(service(traffic=[pinned("app-1", 60), pinned("gone", 40, "t"), latest(0, "next")]), id="a split with tags"),
        pytest.param(service(container={"liveness_probe": {"http_get": {}, "period_seconds": 3600}}), id="a rare liveness probe"),
        pytest.param(service(container={"image": f"a.b:5000/p/r/app@sha256:{'0' * 64}"}), id="an image by digest"),
    ],
)
def test_what_the_rules_allow_is_accepted(wanted: run_v2.Service) -> None:
    assert refusal(wanted) == ""


def test_a_refusal_names_the_field_in_its_details() -> None:
    with pytest.raises(Malformed) as malformed:
        validation.service(service({"timeout": datetime.timedelta(hours=2)}), "app")
    (details,) = malformed.value.within("UpdateServiceRequest").details
    (violation,) = details.field_violations
    assert violation.field == "Violation in UpdateServiceRequest.service.template.timeout"
    assert violation.description == "maximum allowed time is one hour."
