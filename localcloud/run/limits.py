"""How much a service, and a project in a region, may have (https://cloud.google.com/run/quotas); texts approximated."""

from collections.abc import Container, Iterable, Sequence

from google.cloud import run_v2

from localcloud.naming import ServiceName
from localcloud.run import targets
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


def tidied(
    name: ServiceName, traffic: Sequence[run_v2.TrafficTarget], old: Container[str], services: Iterable[StoredService]
) -> list[run_v2.TrafficTarget]:
    """What is left of a service's traffic where a region has more tags than it may: of the `old` ones those without a percentage go.

    The oldest come first: "in historical order"; their order is that of the targets [approximated]. If that is not enough, it is refused.
    """
    others = [each for each in _neighbours(name, services) if each.name != str(name)]
    taken = sum(bool(target.tag) for each in others for target in targets.kept(each.routes))
    beyond = max(taken + sum(bool(target.tag) for target in traffic) - _MOST_TAGS, 0)
    going = {target.tag for target in [each for each in traffic if each.tag in old and not each.percent][:beyond]}
    if len(going) < beyond:
        raise _exhausted(f"{_MOST_TAGS} revision tags", "remove some from services' traffic")
    return [target for target in traffic if target.tag not in going]


def _neighbours(name: ServiceName, services: Iterable[StoredService]) -> list[StoredService]:
    return [each for each in services if each.name.startswith(f"{name.parent}/services/")]


def _exhausted(most: str, remedy: str) -> Refusal:
    return Refusal(Code.RESOURCE_EXHAUSTED, f"Quota exceeded: a project has at most {most} in a region; {remedy}.")
