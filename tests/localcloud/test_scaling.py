"""How many instances a revision has: up to its maximum, down to its minimum, one for each request that finds no place, fairly."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from clouds import Cloud, eventually, latest, pinned
from google.cloud import run_v2

from localcloud.run.scaling import Limits, limits

Own = Callable[..., Cloud]
MANUAL = run_v2.ServiceScaling.ScalingMode.MANUAL


def by_hand(count: int) -> dict[str, Any]:
    return {"scaling_mode": MANUAL, "manual_instance_count": count}


@pytest.fixture(scope="module")
def quick(registry: str, web_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A local cloud whose instances idle after a second, and whose requests wait for two."""
    options = ("--startup-seconds", "5", "--idle-seconds", "1", "--pending-seconds", "2")
    made = Cloud(tmp_path_factory.mktemp("run") / "state", registry, web_image, options)
    made.start()
    try:
        yield made
    finally:
        made.end()


def running(cloud: Cloud, service: str) -> list[Any]:
    return [each for each in cloud.containers(running=True) if each.labels["relais.service"] == service]


def reasons(cloud: Cloud, service: str) -> Counter[str]:
    texts = [each.text_payload for each in cloud.entries("varlog/system", service)]
    return Counter(text.split("Reason: ")[1].split(" - ")[0] for text in texts if text.startswith("Starting new instance."))


def template(concurrency: int, least: int = 0, most: int = 3) -> dict[str, Any]:
    scaling = run_v2.RevisionScaling(min_instance_count=least, max_instance_count=most)
    return {"max_instance_request_concurrency": concurrency, "scaling": scaling}


def serving(cloud: Cloud, service: str) -> int:
    """How many instances ever began to serve."""
    return sum("probe succeeded" in each.text_payload for each in cloud.entries("varlog/system", service))


class Held:
    """Requests that are sent, and last until they are let go: their bodies do not end before."""

    def __init__(self, *urls: str) -> None:
        self._sent, self._go, self._pool = threading.Semaphore(0), threading.Event(), ThreadPoolExecutor(len(urls))
        self._answers = [self._pool.submit(httpx.post, url + "/host", content=self._body(), timeout=60) for url in urls]
        assert all(self._sent.acquire(timeout=10) for _ in urls)

    def _body(self) -> Iterator[bytes]:
        yield b"x"
        self._sent.release()
        self._go.wait(60)

    def let_go(self) -> list[httpx.Response]:
        self._go.set()
        return [each.result() for each in self._answers]


def at_once(url: str, count: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: httpx.get(url, timeout=30), range(count)))


@pytest.mark.parametrize(
    ("service", "revision", "percents", "expected"),
    [
        pytest.param({}, {}, {"a": 100}, [(0, 100)], id="nothing is said"),
        pytest.param({"min_instance_count": 10}, {}, {"a": 60, "b": 40}, [(6, 100), (4, 100)], id="the service's minimum is divided"),
        pytest.param({"min_instance_count": 3}, {}, {"b": 50, "a": 50}, [(2, 100), (1, 100)], id="the first rounds up"),
        pytest.param({"min_instance_count": 10}, {"min_instance_count": 6}, {"a": 50, "b": 50}, [(6, 100)] * 2, id="the higher minimum"),
        pytest.param({"min_instance_count": 10}, {"max_instance_count": 3}, {"a": 50, "b": 50}, [(3, 3)] * 2, id="the maximum caps"),
        pytest.param({"max_instance_count": 5}, {"min_instance_count": 10}, {"a": 100}, [(5, 5)], id="the service's maximum caps"),
        pytest.param({"max_instance_count": 5}, {"max_instance_count": 10}, {"a": 100}, [(0, 5)], id="the lower maximum"),
        pytest.param({"max_instance_count": 4}, {}, {"a": 99, "b": 1}, [(0, 4), (0, 1)], id="one at the least with traffic"),
        pytest.param({"min_instance_count": 2}, {"min_instance_count": 3}, {"a": 100, "b": 0}, [(3, 100), (0, 100)], id="no traffic"),
        pytest.param(by_hand(4), {"min_instance_count": 9}, {"a": 75, "b": 25}, [(3, 3), (1, 1)], id="by hand"),
        pytest.param(by_hand(0), {}, {"a": 100}, [(0, 0)], id="by hand, none"),
    ],
)  # fmt: skip
def test_service_and_revision_together_limit_the_instances(
    service: dict[str, Any], revision: dict[str, int], percents: dict[str, int], expected: list[tuple[int, int]]
) -> None:
    found = [limits(run_v2.ServiceScaling(**service), run_v2.RevisionScaling(**revision), percents, name) for name in percents]
    assert found == [Limits(*each) for each in expected]


def test_requests_at_once_get_an_instance_each_up_to_the_maximum_and_all_go_again(quick: Cloud) -> None:
    made = quick.create("wide", template=template(concurrency=1))
    assert len(running(quick, "wide")) == 1
    held = Held(*[made.uri] * 3)
    eventually(lambda: serving(quick, "wide") == 3, 30)
    answers = held.let_go()
    assert [each.status_code for each in answers] == [200] * 3
    assert len({each.text for each in answers}) == 3
    queued = at_once(made.uri + "/host?s=0.3", 6)  # twice as many as there are places: the others wait for their turn
    assert [each.status_code for each in queued] == [200] * 6
    told = reasons(quick, "wide")
    assert (told["DEPLOYMENT_ROLLOUT"], told["AUTOSCALING"] >= 2) == (1, True)
    eventually(lambda: not running(quick, "wide"))
    assert httpx.get(made.uri, timeout=20).status_code == 200
    assert reasons(quick, "wide")["AUTOSCALING"] == told["AUTOSCALING"] + 1


def test_an_instance_is_shared_up_to_its_concurrency(quick: Cloud) -> None:
    made = quick.create("shared", template=template(concurrency=4))
    four = Held(*[made.uri] * 4)
    four_more = Held(*[made.uri] * 4)
    eventually(lambda: serving(quick, "shared") == 2, 30)
    shares = Counter(each.text for held in (four, four_more) for each in held.let_go())
    assert list(shares.values()) == [4, 4]


def test_a_full_service_refuses_after_a_while_and_a_client_that_goes_leaves_the_line(quick: Cloud) -> None:
    made = quick.create("full", template=template(concurrency=1, most=1))
    held = Held(made.uri)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(made.uri + "/host", timeout=0.3)
    refused = httpx.get(made.uri + "/host", timeout=20)
    assert [each.status_code for each in held.let_go()] == [200]
    assert (refused.status_code, refused.text) == (429, "Rate exceeded.")
    entry = next(each for each in quick.entries("requests", "full") if each.http_request.status == 429)
    assert entry.text_payload.startswith("The request was aborted because there was no available instance.")
    assert httpx.get(made.uri + "/host").status_code == 200


def test_requests_spread_over_the_instances_that_are_kept(quick: Cloud) -> None:
    made = quick.create("kept", template=template(concurrency=8, least=2))
    eventually(lambda: len(running(quick, "kept")) == 2)
    eventually(lambda: len({httpx.get(made.uri + "/host").text for _ in range(4)}) == 2)
    assert set(Counter(httpx.get(made.uri + "/host").text for _ in range(10)).values()) == {5}
    assert reasons(quick, "kept")["MANUAL_OR_CUSTOMER_MIN_INSTANCE"] == 1
    time.sleep(1.5)  # longer than instances idle
    assert len(running(quick, "kept")) == 2
    victim = running(quick, "kept")[0]
    victim.kill()
    eventually(lambda: victim.id not in (now := [each.id for each in running(quick, "kept")]) and len(now) == 2)
    assert httpx.get(made.uri).status_code == 200


def test_the_services_minimum_follows_the_traffic(quick: Cloud) -> None:
    made = quick.create("moving", revision="moving-a", template=template(concurrency=8), scaling={"min_instance_count": 2})
    made.template = quick.template({}, "moving-b", **template(concurrency=8))
    made.traffic = [pinned("moving-a", 50), pinned("moving-b", 50)]
    made = quick.update(made, "template", "traffic")

    def by_revision() -> Counter[str]:
        return Counter(each.labels["relais.revision"] for each in running(quick, "moving"))

    eventually(lambda: by_revision() == {"moving-a": 1, "moving-b": 1})
    made.traffic = [pinned("moving-b", 100)]
    made = quick.update(made, "traffic")
    eventually(lambda: by_revision() == {"moving-b": 2})
    made.traffic, made.scaling = [latest()], run_v2.ServiceScaling(scaling_mode=MANUAL, manual_instance_count=1)
    quick.update(made, "traffic", "scaling")
    eventually(lambda: by_revision() == {"moving-b": 1})


def test_an_instance_that_dies_under_load_takes_its_own_requests_with_it_and_no_others(quick: Cloud) -> None:
    made = quick.create("mortal", template=template(concurrency=1, most=2))
    held = Held(*[made.uri] * 2)
    eventually(lambda: serving(quick, "mortal") == 2, 30)
    victim = running(quick, "mortal")[-1]
    victim.kill()
    eventually(lambda: any("terminated" in each.text_payload for each in quick.entries("varlog/system", "mortal")))
    assert sorted(each.status_code for each in held.let_go()) == [200, 503]
    assert {each.status_code for each in at_once(made.uri + "/host", 4)} == {200}


def test_no_request_is_lost_while_instances_go(quick: Cloud) -> None:
    made = quick.create("shrinking", template=template(concurrency=1))
    held = Held(*[made.uri] * 3)
    eventually(lambda: serving(quick, "shrinking") == 3, 30)
    held.let_go()
    statuses: Counter[int] = Counter()
    until = time.monotonic() + 15
    with httpx.Client() as client:
        while len(running(quick, "shrinking")) > 1:
            statuses[client.get(made.uri + "/host").status_code] += 1
            assert time.monotonic() < until
    assert set(statuses) == {200}


def test_an_instance_that_fails_twenty_times_in_a_row_is_replaced(quick: Cloud) -> None:
    made = quick.create("broken", template=template(concurrency=1))
    with httpx.Client() as client:
        first = {client.get(made.uri + "/host?code=500").text for _ in range(20)}
        assert len(first) == 1
        assert {client.get(made.uri + "/host", timeout=20).text}.isdisjoint(first)


def test_the_machine_has_room_for_so_many_and_idle_instances_give_way(own_cloud: Own) -> None:
    cloud = own_cloud("--max-containers", "2", "--pending-seconds", "1")
    first = cloud.create("room-a", template=template(concurrency=1))
    cloud.create("room-b")
    third = cloud.create("room-c", template=template(concurrency=1))  # the longest idle one went for it
    assert {each.labels["relais.service"] for each in cloud.containers()} == {"room-b", "room-c"}
    held = [Held(third.uri), Held(first.uri)]
    eventually(lambda: serving(cloud, "room-a") == 2, 30)
    assert httpx.get(third.uri + "/host", timeout=20).status_code == 429
    assert [each.status_code for one in held for each in one.let_go()] == [200, 200]
    cloud.update(cloud.named("room-c", scaling=by_hand(2**31 - 1)), "scaling")  # more than there can be: the others go on
    eventually(lambda: len({each.id for each in running(cloud, "room-c")}) == 2, 20)
    assert cloud.get("room-a").terminal_condition.state.name == "CONDITION_SUCCEEDED"


def test_several_instances_are_taken_up_after_a_restart(own_cloud: Own) -> None:
    cloud = own_cloud("--idle-seconds", "60")
    made = cloud.create("several", template=template(concurrency=1))
    held = Held(*[made.uri] * 3)
    eventually(lambda: serving(cloud, "several") == 3, 30)
    before, kept = {each.text for each in held.let_go()}, {each.id for each in running(cloud, "several")}
    assert len(before) == len(kept) == 3
    cloud.stop()
    cloud.start()
    again = Held(*[cloud.get("several").uri] * 3)
    assert {each.text for each in again.let_go()} <= before
    assert {each.id for each in running(cloud, "several")} == kept
