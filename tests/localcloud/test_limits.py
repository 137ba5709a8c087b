"""How much there may be: revisions of a service, services and tags of a project in a region; without a server."""

import json

import pytest

from localcloud.naming import ServiceName, check_place
from localcloud.run import limits
from localcloud.state import StoredService
from localcloud.wire import Code, Refusal

APP = ServiceName("p", "r", "app")


def region(services: int, tags: int = 0, name: str = "r") -> list[StoredService]:
    routes = json.dumps([{"revision": "x-1", "percent": 0, "tag": f"t{number}"} for number in range(tags)] + [{"tag": ""}])
    return [StoredService(f"projects/p/locations/{name}/services/s{number}", b"", routes=routes) for number in range(services)]


def test_the_oldest_revisions_that_do_not_serve_go_beyond_a_thousand() -> None:
    names = [f"app-{number}" for number in range(1003, 0, -1)]
    assert limits.superfluous(names, set()) == ["app-1", "app-2", "app-3"]
    assert limits.superfluous(names, {"app-1", "app-3"}) == ["app-2", "app-4", "app-5"]
    assert limits.superfluous(names[:1000], set()) == []


def test_a_region_has_room_for_a_thousand_services() -> None:
    limits.room_for_service(APP, [*region(999), *region(1000, name="elsewhere")])
    with pytest.raises(Refusal, match="at most 1000 services in a region; delete some") as refused:
        limits.room_for_service(APP, region(1000))
    assert refused.value.code is Code.RESOURCE_EXHAUSTED


def test_a_region_has_room_for_two_thousand_tags() -> None:
    own = [StoredService(str(APP), b"", routes=json.dumps([{"tag": "old"}] * 500))]  # replaced by what is asked for
    limits.room_for_tags(APP, 1000, [*region(10, 100), *own])
    with pytest.raises(Refusal, match="at most 2000 revision tags in a region; remove some"):
        limits.room_for_tags(APP, 1001, [*region(10, 100), *own])


@pytest.mark.parametrize("place", ["projects/p/locations/-", "projects/-/locations/r"])
def test_nothing_is_created_in_all_places_at_once(place: str) -> None:
    with pytest.raises(Refusal, match="is not one location"):
        check_place(place)
