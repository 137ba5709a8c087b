"""The traffic targets of a service that serve: by revision, as they are kept beside the service and as its statuses tell them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.cloud import run_v2

from localcloud.naming import short
from localcloud.run.validation import LATEST


@dataclass(frozen=True)
class Target:
    """One traffic target that serves: a revision by its short name."""

    revision: str
    percent: int
    tag: str


def kept(routes: str) -> list[Target]:
    """The targets as they are kept."""
    return [Target(**each) for each in json.loads(routes)]


def keeping(targets: Iterable[Target]) -> str:
    """What is kept of the targets."""
    return json.dumps([vars(each) for each in targets])


def wanted(service: run_v2.Service) -> list[Target]:
    """The targets that a service wants, with the latest ready revision by its name."""
    latest = short(service.latest_ready_revision)
    return [Target(each.revision or latest, each.percent, each.tag) for each in service.traffic]


def percents(targets: Iterable[Target]) -> dict[str, int]:
    """How much of the traffic each revision gets."""
    found: dict[str, int] = {}
    for target in targets:
        found[target.revision] = found.get(target.revision, 0) + target.percent
    return found


def reached(targets: Iterable[Target]) -> set[str]:
    """The revisions that requests come to, by their short names."""
    return {each.revision for each in targets if each.percent or each.tag}


def status(target: Any, uri: str) -> run_v2.TrafficTargetStatus:
    """How a target of the service is told once it serves."""
    return run_v2.TrafficTargetStatus(
        type_=target.type_,
        revision="" if target.type_ == LATEST else target.revision,  # [Terraform states of real services]
        percent=target.percent,
        tag=target.tag,
        uri=uri,
    )
