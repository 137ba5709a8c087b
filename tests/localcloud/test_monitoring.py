"""Cloud Monitoring by its official client, over requests that were really made."""

import datetime
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from clouds import Cloud, eventually
from google.api import metric_pb2
from google.api_core import exceptions
from google.cloud import monitoring_v3
from google.cloud.monitoring_v3 import Aggregation, MetricServiceClient
from google.protobuf.timestamp_pb2 import Timestamp

RUN = "run.googleapis.com"
PROJECT = "projects/test-project"
QUICK = {"period_s": 0.5, "delay_s": 0}
ALIGN, REDUCE = Aggregation.Aligner, Aggregation.Reducer


def client(cloud: Cloud) -> MetricServiceClient:
    return MetricServiceClient(transport=MetricServiceClient.get_transport_class("grpc")(channel=cloud.channel))


def interval(seconds: float = 600) -> monitoring_v3.TimeInterval:
    now = datetime.datetime.now(datetime.UTC)
    return monitoring_v3.TimeInterval(end_time=now + datetime.timedelta(seconds=5), start_time=now - datetime.timedelta(seconds=seconds))


def aligned(seconds: int, aligner: Any, reducer: Any, *group_by: str) -> Aggregation:
    period = {"seconds": seconds}
    return Aggregation(alignment_period=period, per_series_aligner=aligner, cross_series_reducer=reducer, group_by_fields=group_by)


def listed(cloud: Cloud, metric: str, more: str = "", **fields: Any) -> list[monitoring_v3.TimeSeries]:
    request = {"name": PROJECT, "filter": f'metric.type = "{RUN}/{metric}" {more}', "interval": interval(), **fields}
    return list(client(cloud).list_time_series(request=request))


@pytest.fixture(scope="module")
def served(registry: str, web_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A local cloud with quick samples, whose service `web` has answered 20 requests, 4 of them with 404."""
    made = Cloud(tmp_path_factory.mktemp("metrics") / "state", registry, web_image, ("--startup-seconds", "3"))
    made.start()
    try:
        made.ask("PATCH", "/behaviour", {"metrics": QUICK})
        uri = made.create("web").uri
        for number in range(20):
            httpx.get(uri + ("/status?code=404" if number % 5 == 0 else "/env"), timeout=10)
        yield made
    finally:
        made.end()


def total(found: list[monitoring_v3.TimeSeries]) -> int:
    return sum(point.value.int64_value for series in found for point in series.points)


def test_requests_are_counted_by_code_and_agree_with_the_log(served: Cloud) -> None:
    entries = served.entries("requests", "web")
    eventually(lambda: total(listed(served, "request_count")) == len(entries) == 20)
    by_code: dict[str, int] = {}
    for entry in entries:
        by_code[str(entry.http_request.status)] = by_code.get(str(entry.http_request.status), 0) + 1
    found = listed(served, "request_count")
    assert {series.metric.labels["response_code"]: total([series]) for series in found} == by_code
    for series in found:
        assert series.metric.labels["response_code_class"] == f"{series.metric.labels['response_code'][0]}xx"
        assert dict(series.resource.labels) == {
            "project_id": "test-project",
            "location": "europe-west1",
            "service_name": "web",
            "configuration_name": "web",
            "revision_name": series.resource.labels["revision_name"],
        }
        ends = [point.interval.end_time for point in series.points]
        assert ends == sorted(ends, reverse=True)
        assert all(point.interval.start_time < point.interval.end_time for point in series.points)


def test_latencies_are_distributions_in_milliseconds(served: Cloud) -> None:
    eventually(lambda: sum(p.value.distribution_value.count for s in listed(served, "request_latencies") for p in s.points) == 20)
    for series in listed(served, "request_latencies"):
        for point in series.points:
            value = point.value.distribution_value
            assert sum(value.bucket_counts) == value.count
            assert 0 < value.mean < 5000
    how = aligned(60, ALIGN.ALIGN_DELTA, REDUCE.REDUCE_PERCENTILE_95)
    (reduced,) = listed(served, "request_latencies", aggregation=how)
    assert all(0 < point.value.double_value < 5000 for point in reduced.points)
    assert dict(reduced.resource.labels) == {"project_id": "test-project"}


def test_instances_are_counted_and_their_use_of_cpu_and_memory_is_measured(served: Cloud) -> None:
    idle = eventually(lambda: [s for s in listed(served, "container/instance_count", 'AND metric.labels.state = "idle"') if s.points])
    assert any(point.value.int64_value == 1 for point in idle[0].points)
    (memory,) = eventually(lambda: listed(served, "container/memory/utilizations"))
    assert 0 < memory.points[0].value.distribution_value.mean < 1
    (cpu,) = eventually(lambda: listed(served, "container/cpu/utilizations"))
    assert 0 <= cpu.points[0].value.distribution_value.mean < 2
    (startup,) = eventually(lambda: listed(served, "container/startup_latencies"))
    assert 0 < startup.points[0].value.distribution_value.mean < 10_000


def test_the_rate_of_failures_by_class_is_one_question(served: Cloud) -> None:
    eventually(lambda: total(listed(served, "request_count")) == 20)
    how = aligned(300, ALIGN.ALIGN_SUM, REDUCE.REDUCE_SUM, "metric.label.response_code_class", "resource.labels.revision_name")
    more = 'AND resource.type = "cloud_run_revision" AND resource.labels.service_name = "web"'
    found = listed(served, "request_count", more, aggregation=how)
    assert {series.metric.labels["response_code_class"]: total([series]) for series in found} == {"2xx": 16, "4xx": 4}
    rate = aligned(600, ALIGN.ALIGN_RATE, REDUCE.REDUCE_SUM)
    (series,) = listed(served, "request_count", aggregation=rate)
    assert sum(point.value.double_value for point in series.points) == pytest.approx(20 / 600)


def test_headers_come_without_points_and_pages_hold_so_many_points(served: Cloud) -> None:
    eventually(lambda: total(listed(served, "request_count")) == 20)
    whole = sum(len(series.points) for series in listed(served, "request_count"))
    view = monitoring_v3.ListTimeSeriesRequest.TimeSeriesView.HEADERS
    assert [len(series.points) for series in listed(served, "request_count", view=view)] == [0, 0]
    pages = list(
        client(served)
        .list_time_series(
            request={"name": PROJECT, "filter": f'metric.type = "{RUN}/request_count"', "interval": interval(), "page_size": 1}
        )
        .pages
    )
    assert [sum(len(series.points) for series in page.time_series) for page in pages] == [1] * whole


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"filter": 'resource.type = "cloud_run_revision"'}, exceptions.InvalidArgument, 'must specify a restriction on "metric.type"'),
        ({"filter": f'metric.type = starts_with("{RUN}")'}, exceptions.InvalidArgument, "single metric type"),
        ({"filter": f'metric.type = "{RUN}/none"'}, exceptions.NotFound, "Cannot find metric.s. that match type"),
        ({"filter": f'metric.type = "{RUN}/request_count" AND resource.labels.x = "y"'}, exceptions.InvalidArgument, "valid combination"),
        ({"filter": f'metric.type = "{RUN}/request_count" AND resource.type = "global"'}, exceptions.InvalidArgument, "valid combination"),
        ({"filter": 'metric.type = "x'}, exceptions.InvalidArgument, "Could not parse filter .* syntax error at line 1, column 15"),
        ({"interval": {}}, exceptions.InvalidArgument, "interval.endTime"),
        ({"interval": {"end_time": Timestamp(seconds=2**62)}}, exceptions.InvalidArgument, "interval.endTime"),
        ({"page_token": "7"}, exceptions.InvalidArgument, "page_token '7' was not given out"),
        ({"page_size": -1}, exceptions.InvalidArgument, "must not be negative"),
        ({"aggregation": {"per_series_aligner": 77}}, exceptions.InvalidArgument, "77 is not a valid"),
        ({"order_by": "x"}, exceptions.InvalidArgument, "order_by"),
        ({"name": "x"}, exceptions.InvalidArgument, "name"),
        ({"aggregation": {"cross_series_reducer": REDUCE.REDUCE_SUM}}, exceptions.InvalidArgument, "be aligned"),
        (
            {"aggregation": {"per_series_aligner": ALIGN.ALIGN_SUM, "alignment_period": {"seconds": 59}}},
            exceptions.InvalidArgument,
            "at least 60s",
        ),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_answered_is_refused(served: Cloud, fields: dict[str, Any], error: type[Exception], text: str) -> None:
    request = {"name": PROJECT, "filter": f'metric.type = "{RUN}/request_count"', "interval": interval(), **fields}
    with pytest.raises(error, match=text):
        list(client(served).list_time_series(request=request))


def test_an_aligner_that_does_not_fit_the_metric_is_refused_in_the_real_words(served: Cloud) -> None:
    eventually(lambda: listed(served, "request_latencies"))
    how = aligned(60, ALIGN.ALIGN_COUNT, REDUCE.REDUCE_NONE)
    with pytest.raises(exceptions.InvalidArgument) as refused:
        listed(served, "request_latencies", aggregation=how)
    assert refused.value.message == (
        'Field aggregation.perSeriesAligner had an invalid value of "ALIGN_COUNT": '
        "The aligner cannot be applied to metrics with kind DELTA and value type DISTRIBUTION."
    )


def test_the_metrics_and_their_resource_are_described(served: Cloud) -> None:
    found = list(client(served).list_metric_descriptors(request={"name": PROJECT, "filter": f'metric.type = starts_with("{RUN}/request")'}))
    assert [each.type for each in found] == [f"{RUN}/request_count", f"{RUN}/request_latencies"]
    one = client(served).get_metric_descriptor(name=f"{PROJECT}/metricDescriptors/{RUN}/container/instance_count")
    kinds = metric_pb2.MetricDescriptor
    assert (one.metric_kind, one.value_type, [label.key for label in one.labels]) == (kinds.GAUGE, kinds.INT64, ["state"])
    assert [each.type for each in client(served).list_monitored_resource_descriptors(name=PROJECT)] == ["cloud_run_revision"]
    with pytest.raises(exceptions.NotFound):
        client(served).get_metric_descriptor(name=f"{PROJECT}/metricDescriptors/none")


def test_nobody_writes_the_metrics_of_cloud_run(served: Cloud) -> None:
    series = {"metric": {"type": f"{RUN}/request_count"}, "resource": {"type": "global"}, "points": []}
    with pytest.raises(exceptions.InvalidArgument, match="cannot be written"):
        client(served).create_time_series(name=PROJECT, time_series=[series])


def test_a_sample_is_seen_after_its_delay_and_survives_a_restart(served: Cloud) -> None:
    uri, before = served.get("web").uri, total(listed(served, "request_count"))
    served.ask("PATCH", "/behaviour", {"metrics": {"period_s": 0.5, "delay_s": 2}})
    httpx.get(uri + "/env", timeout=10)
    asked = time.monotonic()
    assert total(listed(served, "request_count")) <= before
    eventually(lambda: total(listed(served, "request_count")) == before + 1)
    assert time.monotonic() - asked > 1
    httpx.get(uri + "/env", timeout=10)
    served.stop()
    served.start()
    eventually(lambda: total(listed(served, "request_count")) == before + 2)
