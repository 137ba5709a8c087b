"""How much there may be: revisions of a service, services and tags of a project in a region; without a server."""

import json

import pytest
from clouds import latest, pinned

from localcloud.naming import ServiceName, check_place
from localcloud.run import limits
from localcloud.state import StoredService
from localcloud.wire import Code, Refusal

APP = ServiceName("p", "r", "app")


def region(services: int, tags: int = 0, name: str = "r") -> list[StoredService]:
    tagged = [{"revision": "x-1", "percent": 0, "tag": f"t{number}"} for number in range(tags)]
    routes = json.dumps([*tagged, {"revision": "x-1", "percent": 100, "tag": ""}])
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


def test_beyond_two_thousand_tags_the_oldest_of_the_service_without_a_percentage_go() -> None:
    routes = json.dumps([{"revision": "x-1", "percent": 0, "tag": "old"}] * 500)
    own = StoredService(str(APP), b"", routes=routes)  # replaced by what is asked for
    asked = [latest(100), pinned("app-1", 0, "one"), pinned("app-2", 0, "two"), pinned("app-3", 0, "new"), pinned("app-4", 0)]

    def left(others: int) -> list[str]:
        services = [*region(1, others), *region(1, 2000, name="elsewhere"), own]
        return [target.tag for target in limits.tidied(APP, asked, {"one", "two"}, services)]

    assert left(1997) == ["", "one", "two", "new", ""]
    assert left(1998) == ["", "two", "new", ""]
    assert left(1999) == ["", "new", ""]
    with pytest.raises(Refusal, match="at most 2000 revision tags in a region; remove some"):
        left(2000)
    asked[1].percent = 1
    assert left(1998) == ["", "one", "new", ""]


@pytest.mark.parametrize("place", ["projects/p/locations/-", "projects/-/locations/r"])
def test_nothing_is_created_in_all_places_at_once(place: str) -> None:
    with pytest.raises(Refusal, match="is not one location"):
        check_place(place)
