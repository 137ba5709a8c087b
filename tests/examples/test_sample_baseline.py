"""Before the first release, Phase 3 serves all the traffic on the local cloud, pinned by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import grpc
import httpx
from emergence import git, lay_out
from google.cloud import run_v2

SERVICE = "projects/emergence-469005/locations/europe-west1/services/emergence-app"


class Cloud(Protocol):
    host: str
    clone: str


def read(cloud: Cloud) -> run_v2.Service:
    transport = run_v2.ServicesClient.get_transport_class("grpc")(channel=grpc.insecure_channel(cloud.host))
    return run_v2.ServicesClient(transport=transport).get_service(name=SERVICE, timeout=10)


def test_the_baseline_serves_everything_once_and_a_second_call_changes_nothing(
    new_cloud: Callable[[], Cloud], base_image: str, laid_out: Path
) -> None:
    cloud = new_cloud()
    done = lay_out("baseline", laid_out, CLOUDRUN_EMULATOR_HOST=cloud.host, RELAIS_BASE_IMAGE=base_image, RELAIS_CLONE=cloud.clone)
    assert done.returncode == 0, done.stderr
    assert "emergence-app-phase3b 100 %" in done.stdout

    service = read(cloud)
    assert [(target.revision, target.percent) for target in service.traffic] == [("emergence-app-phase3b", 100)]
    assert "@sha256:" in service.template.containers[0].image
    assert dict(service.template.containers[0].resources.limits) == {"memory": "2Gi", "cpu": "2"}
    assert {variable.name for variable in service.template.containers[0].env} == {"LOG_LEVEL", "SESSIONS_KEPT"}
    phase3 = git(laid_out, "log", "--format=%H", "--grep", "feat(phase3)", "--fixed-strings")
    assert service.template.annotations["relais.dev/commit"] == phase3

    version = httpx.get(service.uri + "/api/version", timeout=30).json()
    assert (version["phase"], version["revision"]) == ("3", "emergence-app-phase3b")
    metrics = httpx.get(service.uri + "/api/metrics", timeout=10).text
    assert "memory_preferences" not in metrics
    assert all(f"# TYPE memory_analysis_cache_{name} " in metrics for name in ("hits_total", "misses_total", "size"))

    again = lay_out("baseline", laid_out, CLOUDRUN_EMULATOR_HOST=cloud.host)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert read(cloud).etag == service.etag


def test_a_local_cloud_that_does_not_answer_is_told_in_one_sentence(laid_out: Path, free_port: Callable[[], int]) -> None:
    done = lay_out("baseline", laid_out, CLOUDRUN_EMULATOR_HOST=f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "no local cloud answers" in done.stderr
    assert "Traceback" not in done.stderr
