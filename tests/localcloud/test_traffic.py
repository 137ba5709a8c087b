"""Who serves how much: splits, pins, tags, and what the proxy in front does with requests."""

import concurrent.futures
import datetime
import gzip
import hashlib
import json
import socket
import time
from collections import Counter
from typing import Any

import httpx
import pytest
from clouds import PARENT, SOON, Cloud, eventually, latest, pinned
from google.api_core import exceptions
from google.cloud import run_v2
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def two(cloud: Cloud, name: str, **env: str) -> run_v2.Service:
    """A service with revisions NAME-a, which serves, and NAME-b, which is tagged."""
    cloud.create(name, revision=f"{name}-a", env={"SAY": "a", **env})
    service = cloud.get(name)
    service.template = cloud.template({"SAY": "b", **env}, f"{name}-b")
    service.traffic = [pinned(f"{name}-a", 100), pinned(f"{name}-b", 0, "next")]
    return cloud.update(service, "template", "traffic")


def shift(cloud: Cloud, name: str, *targets: run_v2.TrafficTarget) -> run_v2.Service:
    return cloud.update(run_v2.Service(name=f"{PARENT}/services/{name}", traffic=list(targets)), "traffic")


def statuses(service: run_v2.Service) -> list[tuple[str, int, str]]:
    return [(each.revision, each.percent, each.tag) for each in service.traffic_statuses]


def condition(cloud: Cloud, revision: str, kind: str) -> Any:
    service = revision.rsplit("-", 1)[0]
    found = cloud.revisions.get_revision(name=f"{PARENT}/services/{service}/revisions/{revision}")
    return next(each for each in found.conditions if each.type_ == kind)


def test_a_tag_has_a_url_of_its_own_and_takes_no_traffic(cloud: Cloud) -> None:
    service = two(cloud, "tagged")
    (url,) = [each.uri for each in service.traffic_statuses if each.tag == "next"]
    assert url != service.uri
    assert httpx.get(url).text == "b"
    assert {httpx.get(service.uri).text for _ in range(20)} == {"a"}


def test_a_split_is_by_the_percentages(cloud: Cloud) -> None:
    service = two(cloud, "split")
    shift(cloud, "split", pinned("split-a", 70), pinned("split-b", 30))
    with httpx.Client() as client:
        answers = Counter(client.get(service.uri).text for _ in range(400))
    assert 70 <= answers["b"] <= 180, answers


def test_a_new_split_is_served_within_a_tenth_of_a_second(cloud: Cloud) -> None:
    service = two(cloud, "quick")
    httpx.get(service.uri)
    took = []
    with httpx.Client() as client:
        for now in ("b", "a") * 5:
            began = time.monotonic()
            targets = [pinned(f"quick-{now}", 100), pinned("quick-a", 0, "a"), pinned("quick-b", 0, "b")]  # tags keep both warm
            request = run_v2.Service(name=service.name, traffic=targets)
            cloud.services.update_service(run_v2.UpdateServiceRequest(service=request, update_mask={"paths": ["traffic"]}))
            while client.get(service.uri).text != now:
                assert time.monotonic() < began + 5
            took.append(time.monotonic() - began)
    assert min(took) < 0.1  # the median: make bench-localcloud


def test_requests_in_flight_finish_where_they_began(cloud: Cloud) -> None:
    service = two(cloud, "flying")
    shift(cloud, "flying", pinned("flying-a", 100))
    with concurrent.futures.ThreadPoolExecutor() as threads:
        slow = threads.submit(httpx.get, service.uri + "/sleep?s=2", timeout=10)
        eventually(lambda: [each for each in cloud.containers(running=True) if each.labels["relais.revision"] == "flying-a"])
        time.sleep(0.5)
        shift(cloud, "flying", pinned("flying-b", 100))
        assert httpx.get(service.uri).text == "b"
        assert slow.result().text == "a"


def test_a_pinned_service_makes_new_revisions_ready_with_no_traffic_and_retires_them(cloud: Cloud) -> None:
    cloud.create("pinned", revision="pinned-a", traffic=[pinned("pinned-a", 100)])
    service = cloud.get("pinned")
    service.template = cloud.template({"SAY": "b"}, "pinned-b")
    made = cloud.update(service, "template")
    assert made.latest_ready_revision == made.latest_created_revision == f"{PARENT}/services/pinned/revisions/pinned-b"
    assert statuses(made) == [("pinned-a", 100, "")]
    assert condition(cloud, "pinned-b", "Ready").state.name == "CONDITION_SUCCEEDED"
    assert condition(cloud, "pinned-b", "Ready").revision_reason.name == "RETIRED"
    assert condition(cloud, "pinned-b", "Active").state.name == "CONDITION_FAILED"
    assert condition(cloud, "pinned-a", "Active").state.name == "CONDITION_SUCCEEDED"
    eventually(lambda: {each.labels["relais.revision"] for each in cloud.containers() if "pinned" in each.name} == {"pinned-a"})


def test_a_retired_revision_serves_again_when_it_gets_traffic(cloud: Cloud) -> None:
    service = two(cloud, "back")
    shift(cloud, "back", pinned("back-b", 100))
    eventually(lambda: {each.labels["relais.revision"] for each in cloud.containers() if "back-" in each.name} == {"back-b"})
    shift(cloud, "back", pinned("back-a", 100))
    assert httpx.get(service.uri, timeout=20).text == "a"


def test_latest_follows_the_newest_revision_that_is_ready(cloud: Cloud) -> None:
    cloud.create("latest", env={"SAY": "one"})
    service = cloud.get("latest")
    service.template.containers[0].env[0].value = "two"
    made = cloud.update(service, "template")
    assert httpx.get(made.uri).text == "two"
    service = cloud.get("latest")
    service.template.containers[0].env = [run_v2.EnvVar(name="FAIL", value="exit")]
    with pytest.raises(exceptions.FailedPrecondition):
        cloud.update(service, "template")
    assert httpx.get(made.uri).text == "two"


def test_a_failed_deploy_is_told_on_the_service_and_a_later_shift_still_works(cloud: Cloud) -> None:
    two(cloud, "broken")
    service = cloud.get("broken")
    service.template = cloud.template({"FAIL": "exit"}, "broken-c")
    service.traffic = [pinned("broken-a", 100), pinned("broken-c", 0, "next")]
    with pytest.raises(exceptions.FailedPrecondition, match=r"Revision 'broken-c' is not ready and cannot serve traffic. The"):
        cloud.update(service, "template", "traffic")
    after = cloud.get("broken")
    assert statuses(after) == [("broken-a", 100, ""), ("broken-b", 0, "next")]
    assert (after.generation, after.observed_generation) == (3, 2)
    routes = next(each for each in after.conditions if each.type_ == "RoutesReady")
    assert routes.message.startswith("Revision 'broken-c' is not ready")
    assert after.terminal_condition.state.name == "CONDITION_FAILED"
    assert after.latest_ready_revision.endswith("broken-b")
    with pytest.raises(exceptions.FailedPrecondition, match="Revision 'broken-c' is not ready"):
        shift(cloud, "broken", pinned("broken-c", 100))
    again = shift(cloud, "broken", pinned("broken-b", 100))
    assert statuses(again) == [("broken-b", 100, "")]


def test_a_tag_that_is_removed_and_given_again_has_its_old_url(cloud: Cloud) -> None:
    service = two(cloud, "moving")
    (url,) = [each.uri for each in service.traffic_statuses if each.tag]
    shift(cloud, "moving", pinned("moving-a", 100))
    eventually(lambda: _refused(url))
    again = shift(cloud, "moving", pinned("moving-a", 100, "next"))
    assert [each.uri for each in again.traffic_statuses] == [url]
    assert httpx.get(url).text == "a"


def _refused(url: str) -> bool:
    try:
        httpx.get(url)
    except httpx.ConnectError:
        return True
    return False


def test_a_latest_target_may_have_a_tag_and_a_share(cloud: Cloud) -> None:
    two(cloud, "mixed")
    service = shift(cloud, "mixed", pinned("mixed-a", 50), latest(50, "edge"))
    (url,) = [each.uri for each in service.traffic_statuses if each.tag]
    assert httpx.get(url).text == "b"


# the way of a request


@pytest.fixture(scope="module")
def web(cloud: Cloud) -> str:
    return cloud.create("web", env={"SAY": "hallo"}).uri


def test_answers_are_streamed_as_they_come(web: str) -> None:
    stamps = []
    with httpx.stream("GET", web + "/stream?s=0.3") as answer:
        for part in answer.iter_raw():
            stamps.append((part, time.monotonic()))
    assert b"".join(part for part, _ in stamps) == b"part0part1part2"
    assert stamps[-1][1] - stamps[0][1] > 0.4


def test_bodies_are_streamed_to_the_instance(web: str) -> None:
    body = b"0123456789abcdef" * 65536 * 3
    assert httpx.post(web + "/echo", content=body).text == hashlib.sha256(body).hexdigest()
    parts = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    assert httpx.post(web + "/echo", content=parts).text == hashlib.sha256(body).hexdigest()


def test_headers_status_and_path_go_through_unchanged(web: str) -> None:
    answer = httpx.get(web + "/status?code=418&x=%2F%20+")
    assert (answer.status_code, answer.headers.get_list("set-cookie")) == (418, ["a=1", "b=2"])
    seen = {key.lower(): value for key, value in httpx.get(web + "/headers", headers={"X-Mine": "1", "Host": "example.com"}).json().items()}
    assert (seen["x-mine"], seen["host"], seen["x-forwarded-proto"], seen["x-forwarded-for"]) == ("1", "example.com", "http", "127.0.0.1")
    assert len(seen["traceparent"].split("-")[1]) == 32
    assert seen["x-cloud-trace-context"].startswith(seen["traceparent"].split("-")[1])
    assert httpx.head(web + "/").status_code in (200, 501)


def test_a_websocket_is_relayed(web: str) -> None:
    with connect(web.replace("http", "ws") + "/ws", compression=None) as connected:
        for text in ("hallo", "x" * 300):
            connected.send(text)
            assert connected.recv(timeout=5) == text
        connected.send(b"\x00\x01")
        assert connected.recv(timeout=5) == b"\x00\x01"


def test_each_request_is_one_log_entry(cloud: Cloud, web: str) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    httpx.get(web + "/status?code=404&once", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01", "User-Agent": "me/1"})
    (entry,) = eventually(lambda: cloud.entries("requests", "web", 'httpRequest.requestUrl:"once"'))
    request = entry.http_request
    assert (request.request_method, request.status, request.user_agent, request.remote_ip) == ("GET", 404, "me/1", "127.0.0.1")
    assert request.request_url == web + "/status?code=404&once"
    seen = (entry.trace, entry.span_id, entry.trace_sampled)
    assert seen == (f"projects/test-project/traces/{trace}", "b7ad6b7169203331", True)
    assert entry.severity == 400
    assert request.response_size == len(b"as asked")
    assert entry.labels["instanceId"]


def test_the_request_log_of_a_tag_shows_the_tags_url(cloud: Cloud) -> None:
    service = two(cloud, "taglog")
    (url,) = [each.uri for each in service.traffic_statuses if each.tag]
    httpx.get(url + "/here")
    (entry,) = eventually(lambda: cloud.entries("requests", "taglog"))
    assert entry.http_request.request_url == url + "/here"
    assert entry.resource.labels["revision_name"] == "taglog-b"


def test_many_requests_share_an_instance_at_once(web: str) -> None:
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: httpx.get(web + "/sleep?s=1", timeout=10).status_code, range(20)))
    assert answers == [200] * 20
    assert time.monotonic() - began < 10  # one after the other they would take 20


def test_a_request_over_its_time_is_504_and_an_instance_error_503(cloud: Cloud) -> None:
    made = cloud.create("slow", template={"timeout": datetime.timedelta(seconds=1)})
    answer = httpx.get(made.uri + "/sleep?s=3", timeout=10)
    assert (answer.status_code, answer.text) == (504, "upstream request timeout")
    assert httpx.get(made.uri + "/exit?code=1", timeout=10).status_code == 503
    found = eventually(lambda: len(cloud.entries("requests", "slow")) == 2 and cloud.entries("requests", "slow"))
    assert sorted(each.http_request.status for each in found) == [503, 504]
    assert json.dumps([each.text_payload for each in found]).count("request") >= 2


def test_the_same_update_may_make_a_revision_and_give_it_traffic(cloud: Cloud) -> None:
    two(cloud, "once")
    service = cloud.get("once")
    service.template = cloud.template({"SAY": "c"}, "once-c")
    service.traffic = [pinned("once-a", 50), pinned("once-c", 50, "next")]
    begun = cloud.services.update_service(run_v2.UpdateServiceRequest(service=service, update_mask={"paths": ["template", "traffic"]}))
    during = cloud.get("once")
    assert during.reconciling
    assert statuses(during) == [("once-a", 100, ""), ("once-b", 0, "next")]
    after = begun.result(polling=SOON)
    assert statuses(after) == [("once-a", 50, ""), ("once-c", 50, "next")]


def test_an_answer_that_goes_on_beyond_the_time_limit_is_broken_off(cloud: Cloud) -> None:
    made = cloud.create("endless", template={"timeout": datetime.timedelta(seconds=1)})
    with httpx.stream("GET", made.uri + "/stream?s=1", timeout=10) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    (entry,) = eventually(lambda: cloud.entries("requests", "endless"))
    assert entry.http_request.status == 504
    assert httpx.get(made.uri).status_code == 200


def test_a_client_that_goes_away_disturbs_nobody(cloud: Cloud) -> None:
    made = cloud.create("leaving", env={"SAY": "x"})
    with httpx.stream("GET", made.uri + "/stream?s=0.5", timeout=10) as answer:
        next(answer.iter_raw())
    assert httpx.get(made.uri).text == "x"
    assert len(eventually(lambda: len(cloud.entries("requests", "leaving")) == 2 and [1, 2])) == 2


def spoken(url: str, words: bytes, *, hang_up: bool = False) -> bytes:
    """The first line that a service answers to these bytes; nothing to a client that hangs up."""
    parts = httpx.URL(url)
    with socket.create_connection((parts.host, parts.port or 80), timeout=10) as line:
        line.sendall(words)
        if hang_up:
            line.shutdown(socket.SHUT_WR)
        with line.makefile("rb") as answer:
            return answer.readline()


def test_a_request_that_its_client_breaks_off_is_not_an_error_of_the_revision(cloud: Cloud) -> None:
    made = cloud.create("broken-off")
    spoken(made.uri, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc", hang_up=True)
    (entry,) = eventually(lambda: cloud.entries("requests", "broken-off"))
    assert (entry.http_request.status, entry.severity, entry.text_payload) == (499, 400, "")


def test_headers_that_make_no_sense_do_no_harm(cloud: Cloud) -> None:
    made = cloud.create("odd-headers", env={"SAY": "x"})
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert b" 200 " in spoken(made.uri, head + b"User-Agent: caf\xe9\r\n\r\n")
    assert b" 200 " in spoken(made.uri, head + b"X-Cloud-Trace-Context: " + b"a" * 32 + b"/" + b"9" * 6000 + b"\r\n\r\n")
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert b" 400 " in spoken(made.uri, upgrade)
    found = eventually(lambda: len(entries := cloud.entries("requests", "odd-headers")) == 3 and entries)
    assert [each.http_request.status for each in found] == [200, 200, 400]


def test_the_close_code_of_a_websocket_goes_through(web: str) -> None:
    with connect(web.replace("http", "ws") + "/ws", compression=None) as connected:
        connected.close(4001, "enough")
        assert connected.close_code == 4001


def test_a_service_that_is_deleted_while_it_is_deployed_ends_its_operation(cloud: Cloud) -> None:
    begun = cloud.services.create_service(parent=PARENT, service=cloud.service("gone", env={"SLOW": "1"}), service_id="gone")
    cloud.services.delete_service(name=f"{PARENT}/services/gone").result(polling=SOON)
    with pytest.raises(exceptions.Aborted, match="was deleted while it was deployed"):
        begun.result(polling=SOON)
    eventually(lambda: not [each for each in cloud.containers() if each.labels["relais.service"] == "gone"])


def test_a_service_that_is_deleted_and_made_again_while_it_is_deployed_serves_what_was_asked_for_last(cloud: Cloud) -> None:
    def begin(say: str, slow: str) -> Any:
        service = cloud.service("reborn", revision="reborn-a", env={"SAY": say, "SLOW": slow})
        return cloud.services.create_service(parent=PARENT, service=service, service_id="reborn")

    first = begin("first", "1")
    eventually(lambda: [each for each in cloud.containers(running=True) if each.labels["relais.service"] == "reborn"])
    cloud.services.delete_service(name=f"{PARENT}/services/reborn").result(polling=SOON)
    made = begin("second", "0").result(polling=SOON)
    assert {httpx.get(made.uri).text for _ in range(5)} == {"second"}
    with pytest.raises(exceptions.Aborted, match="was deleted while it was deployed"):
        first.result(polling=SOON)
    eventually(lambda: len([each for each in cloud.containers() if each.labels["relais.service"] == "reborn"]) == 1)
    assert httpx.get(made.uri).text == "second"


def test_two_deployments_at_once_both_end_and_the_newer_serves(cloud: Cloud) -> None:
    cloud.create("pair", revision="pair-a", env={"SAY": "a"})
    begun = []
    for name, slow in (("b", "1"), ("c", "0")):
        service = cloud.get("pair")
        service.template = cloud.template({"SAY": name, "SLOW": slow}, f"pair-{name}")
        begun.append(cloud.services.update_service(run_v2.UpdateServiceRequest(service=service, update_mask={"paths": ["template"]})))
    for each in begun:
        each.result(polling=SOON)
    service = cloud.get("pair")
    assert service.latest_ready_revision.endswith("pair-c")
    assert (httpx.get(service.uri).text, service.reconciling, service.generation) == ("c", False, service.observed_generation)


def test_a_websocket_ends_when_its_instance_does(cloud: Cloud) -> None:
    made = cloud.create("socket")
    with connect(made.uri.replace("http", "ws") + "/ws", compression=None) as connected:
        connected.send("hallo")
        assert connected.recv(timeout=5) == "hallo"
        httpx.get(made.uri + "/exit?code=1", timeout=10)
        with pytest.raises(ConnectionClosed):
            connected.recv(timeout=5)
    assert eventually(lambda: cloud.entries("requests", "socket", "httpRequest.status=101"))
    assert httpx.get(made.uri, timeout=20).status_code == 200


def test_a_compressed_body_and_a_body_that_waits_for_leave_go_through(web: str) -> None:
    body = gzip.compress(b"hallo" * 1000)
    seen = httpx.post(web + "/echo", content=body, headers={"Content-Encoding": "gzip"}).text
    assert seen == hashlib.sha256(body).hexdigest()
    host, port = web.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 100 Continue")
        raw.sendall(b"hallo")
        assert raw.recv(100).startswith(b"HTTP/1.1 200")


def test_a_revision_that_is_made_retired_and_reached_again_while_it_starts_ends_up_serving(cloud: Cloud) -> None:
    service = two(cloud, "flip", SLOW="0.5")
    shift(cloud, "flip", pinned("flip-b", 100))
    eventually(lambda: {each.labels["relais.revision"] for each in cloud.containers() if "flip-" in each.name} == {"flip-b"})
    for _ in range(3):
        shift(cloud, "flip", pinned("flip-a", 100))
        shift(cloud, "flip", pinned("flip-b", 100))
    shift(cloud, "flip", pinned("flip-a", 100))
    assert httpx.get(service.uri, timeout=20).text == "a"
    eventually(lambda: {each.labels["relais.revision"] for each in cloud.containers() if "flip-" in each.name} == {"flip-a"})
    assert len([each for each in cloud.containers() if "flip-" in each.name]) == 1
