"""prefect.yaml: what `make up` deploys can be loaded, and its parameters are those of its flow."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
NAMES = [f"{one['entrypoint'].rpartition('.')[2]}/{one['name']}" for one in DEPLOYMENTS]
every_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=NAMES)


def flow_of(deployment: dict[str, Any]) -> Flow[Any, Any]:
    module, _, name = deployment["entrypoint"].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Flow)
    return found


@every_deployment
def test_the_entrypoint_is_a_flow_with_its_name(deployment: dict[str, Any]) -> None:
    assert flow_of(deployment).name == deployment["entrypoint"].rpartition(".")[2]


@every_deployment
def test_the_parameters_are_valid_for_the_flow(deployment: dict[str, Any]) -> None:
    flow, given = flow_of(deployment), deployment.get("parameters", {})
    assert set(given) <= set(flow.parameters.properties)
    missing = set(flow.parameters.required) - set(given)
    asked_in_the_form = {"release"} if flow.name == "documents" else set()
    assert missing == asked_in_the_form
    flow.validate_parameters({**dict.fromkeys(missing, "20261124-213112-3fa9c2"), **given})


@every_deployment
def test_every_parameter_says_what_it_is_for(deployment: dict[str, Any]) -> None:
    for name, field in flow_of(deployment).parameters.properties.items():
        assert field.get("description") or "allOf" in field or "$ref" in field, name


def test_the_names_are_those_that_the_documents_give() -> None:
    assert set(NAMES) == {
        "release/emergence-app", "preflight/emergence-app", "promote/emergence-app", "rollback/emergence-app", "documents/documents",
        "watch/watch",
    }  # fmt: skip


def test_two_releases_of_a_service_wait_for_one_another_and_watches_do_not_pile_up() -> None:
    limits = {one["entrypoint"]: one.get("concurrency_limit") for one in DEPLOYMENTS}
    assert limits["flows.release.release"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert limits["flows.watch.watch"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
