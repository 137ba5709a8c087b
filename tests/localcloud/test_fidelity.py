"""docs/localcloud.md says of every RPC and every field whether it is as on Google: nothing is left out, nothing is invented."""

import importlib
import importlib.resources
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from clouds import Cloud
from google.cloud import artifactregistry_v1 as ar
from google.cloud import logging_v2, monitoring_v3, run_v2, secretmanager_v1
from google.iam.v1 import policy_pb2
from google.longrunning import operations_pb2

PAGE = Path(__file__).parents[2] / "docs" / "localcloud.md"
PACKAGES = ("run_v2", "artifactregistry_v1", "logging_v2", "monitoring_v3", "secretmanager_v1")
SERVED = {
    "Services", "Revisions", "Operations", "ArtifactRegistry", "LoggingServiceV2", "MetricService", "SecretManagerService",
}  # fmt: skip
# The resources that are read and written; what they consist of is found from them.
RESOURCES = (
    run_v2.Service, run_v2.Revision, run_v2.CreateServiceRequest, run_v2.UpdateServiceRequest, run_v2.DeleteServiceRequest,
    run_v2.ListServicesRequest, run_v2.ListRevisionsRequest, run_v2.DeleteRevisionRequest, operations_pb2.Operation,
    operations_pb2.ListOperationsRequest, operations_pb2.WaitOperationRequest, policy_pb2.Policy,
    ar.Repository, ar.DockerImage, ar.Package, ar.Version, ar.Tag, ar.ListDockerImagesRequest, ar.ListTagsRequest, ar.ListVersionsRequest,
    ar.DeleteVersionRequest,
    logging_v2.types.LogEntry, logging_v2.types.ListLogEntriesRequest, logging_v2.types.WriteLogEntriesRequest,
    logging_v2.types.TailLogEntriesRequest,
    monitoring_v3.ListTimeSeriesRequest, monitoring_v3.TimeSeries,
    secretmanager_v1.Secret, secretmanager_v1.SecretVersion, secretmanager_v1.AccessSecretVersionResponse,
)  # fmt: skip
WORDS = ("same", "approximated", "absent")


def services() -> dict[str, list[str]]:
    """Every service of the installed clients that is served here, and its RPCs."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        told = json.loads(importlib.resources.files(f"google.cloud.{package}").joinpath("gapic_metadata.json").read_text())
        for name, service in told["services"].items():
            if name in SERVED:
                found[name] = sorted(service["clients"]["grpc"]["rpcs"])
    operations = operations_pb2.DESCRIPTOR.services_by_name["Operations"]
    return found | {"Operations": sorted(method.name for method in operations.methods)}


def messages() -> dict[str, set[str]]:
    """Every message that the resources consist of, and its fields; well-known types, entries of maps, and what is absent aside."""
    absent = {f"{message}.{field}" for message, field, word in told("Every field") if word == "absent"}
    found: dict[str, set[str]] = {}
    ahead = [getattr(each, "pb", lambda each=each: each)().DESCRIPTOR for each in RESOURCES]
    while ahead:
        message = ahead.pop()
        if message.full_name.startswith(("google.protobuf.", "google.rpc.")):
            continue
        within = short(message.full_name)
        present = [field for field in message.fields if f"{within}.{field.name.rstrip('_')}" not in absent]
        inner = [field.message_type for field in present if field.message_type is not None]
        if message.GetOptions().map_entry:
            ahead.extend(inner)
            continue
        if within not in found:
            found[within] = {field.name.rstrip("_") for field in message.fields}
            ahead.extend(inner)
    return found


def rows(title: str) -> Iterator[list[str]]:
    """The rows of the page's tables under a heading, cell by cell."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert section is not None, f"{PAGE.name} has no section {title!r}"
    for line in section[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and not set(line) <= set("|- :") and cells[0].startswith("`"):
            yield cells


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def told(title: str) -> Iterator[tuple[str, str, str]]:
    """(service or message, RPC or field, word) of every row."""
    for whose, which, word, *_ in rows(title):
        for name in names(which):
            yield names(whose)[0], name, word


def short(message: str) -> str:
    """A message's name without its package, which is in lower case."""
    return re.sub(r"^([a-z0-9_]+\.)+", "", message)


def test_every_rpc_is_told_once_and_in_one_of_three_words() -> None:
    expected = sorted((service, rpc) for service, rpcs in services().items() for rpc in rpcs)
    found = sorted((service, rpc) for service, rpc, _ in told("Every RPC"))
    assert found == expected
    assert {word for *_, word in told("Every RPC")} <= set(WORDS)


def test_every_field_is_told_once_and_in_one_of_three_words() -> None:
    expected = sorted((message, field) for message, fields in messages().items() for field in fields)
    found = sorted((message, field) for message, field, _ in told("Every field"))
    assert found == expected
    assert {word for *_, word in told("Every field")} <= set(WORDS)


def test_what_is_approximated_says_how() -> None:
    silent = [row[:3] for title in ("Every RPC", "Every field") for row in rows(title) if row[2] == "approximated" and not "".join(row[3:])]
    assert not silent


@pytest.mark.parametrize("word", ["absent", "served"])
def test_an_rpc_is_unimplemented_exactly_when_the_page_says_so(cloud: Cloud, word: str) -> None:
    wrong = []
    for service, rpc, said in told("Every RPC"):
        if (said == "absent") != (word == "absent") or rpc == "TailLogEntries":
            continue
        code = ask(cloud, service, rpc)
        if (code == grpc.StatusCode.UNIMPLEMENTED) != (word == "absent"):
            wrong.append(f"{service}.{rpc}: the page says {said}, the local cloud answers {code.name}")
    assert not wrong, "\n".join(wrong)


def ask(cloud: Cloud, service: str, rpc: str) -> grpc.StatusCode:
    """How an empty request is answered."""
    full = {
        "Services": "google.cloud.run.v2", "Revisions": "google.cloud.run.v2", "Operations": "google.longrunning",
        "ArtifactRegistry": "google.devtools.artifactregistry.v1", "LoggingServiceV2": "google.logging.v2",
        "MetricService": "google.monitoring.v3", "SecretManagerService": "google.cloud.secretmanager.v1",
    }[service]  # fmt: skip
    method: Any = cloud.channel.unary_unary(f"/{full}.{service}/{rpc}")
    try:
        method(b"", timeout=10)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()  # type: ignore[attr-defined]  # a call and an error at once
        return code
    return grpc.StatusCode.OK
