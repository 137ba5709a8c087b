"""How much a service, and a project in a region, may have (https://cloud.google.com/run/quotas); texts approximated."""

import json
from collections.abc import Container, Iterable, Sequence

from localcloud.naming import ServiceName
from localcloud.state import StoredService
from localcloud.wire import Code, Refusal

MOST_REVISIONS = 1000
_MOST_SERVICES = 1000
_MOST_TAGS = 2000


def superfluous(revisions: Sequence[str], kept: Container[str]) -> list[str]:
    """Which of a service's revisions (newest first) are one too many: the oldest that are not kept."""
    beyond = max(len(revisions) - MOST_REVISIONS, 0)
    return [each for each in reversed(revisions) if each not in kept][:beyond]


def room_for_service(name: ServiceName, services: Iterable[StoredService]) -> None:
    """Refuse one service more than a region may have."""
    if len(_neighbours(name, services)) >= _MOST_SERVICES:
        raise _exhausted(f"{_MOST_SERVICES} services", "delete some")


def room_for_tags(name: ServiceName, tags: int, services: Iterable[StoredService]) -> None:
    """Refuse more tags than all services of a region may have together; `tags` are those that this service is to have."""
    others = [each for each in _neighbours(name, services) if each.name != str(name)]
    taken = sum(bool(target["tag"]) for each in others for target in json.loads(each.routes))
    if taken + tags > _MOST_TAGS:
        raise _exhausted(f"{_MOST_TAGS} revision tags", "remove some from services' traffic")


def _neighbours(name: ServiceName, services: Iterable[StoredService]) -> list[StoredService]:
    return [each for each in services if each.name.startswith(f"{name.parent}/services/")]


def _exhausted(most: str, remedy: str) -> Refusal:
    return Refusal(Code.RESOURCE_EXHAUSTED, f"Quota exceeded: a project has at most {most} in a region; {remedy}.")
