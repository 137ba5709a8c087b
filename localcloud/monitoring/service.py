"""Cloud Monitoring v3, MetricService over what was recorded (google/monitoring/v3/metric_service.proto)."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from google.api import distribution_pb2, label_pb2, metric_pb2, monitored_resource_pb2
from google.cloud import monitoring_v3

from localcloud.monitoring import metricfilter
from localcloud.monitoring.alignment import Aggregation, aggregated
from localcloud.monitoring.metricfilter import Filter
from localcloud.monitoring.metrics import Metrics
from localcloud.monitoring.series import METRICS, RESOURCE, RESOURCE_LABELS, Buckets, Distribution, Metric, Point, Series
from localcloud.pages import page
from localcloud.wire import Code, Context, Refusal

_metric: Any = metric_pb2  # generated modules have no types
_resource: Any = monitored_resource_pb2
_label: Any = label_pb2
_distribution: Any = distribution_pb2
_PROJECT = re.compile(r"projects/([^/\s]+)")
_MOST_POINTS, _MOST_DISTRIBUTIONS = 75_000, 10_000  # what fits into a message of 4 MiB [approximated: 100,000 on Google]
_INT64 = 2**63 - 1
_HEADERS: Any = monitoring_v3.ListTimeSeriesRequest.TimeSeriesView.HEADERS
_KINDS: Any = _metric.MetricDescriptor.MetricKind
_TYPES: Any = _metric.MetricDescriptor.ValueType


class Monitoring:
    """google.monitoring.v3.MetricService for the metrics of Cloud Run."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def ListTimeSeries(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[metric_service.proto ListTimeSeries] One metric; points newest first."""
        return await asyncio.to_thread(self._listed, request)  # there may be many samples

    def _listed(self, request: Any) -> Any:
        project = _project(request.name)
        wanted = monitoring_v3.ListTimeSeriesRequest.pb(request)
        if request.order_by:
            raise Refusal(Code.INVALID_ARGUMENT, f'Field order_by had an invalid value of "{request.order_by}": it must be left blank.')
        start, end = _interval(wanted)
        filter_ = metricfilter.compile(request.filter)
        metric = _metric_of(filter_, request.filter)
        first, second = _aggregation(wanted.aggregation), _aggregation(wanted.secondary_aggregation)
        if second != Aggregation() and first == Aggregation():
            raise Refusal(Code.INVALID_ARGUMENT, "Field secondaryAggregation may only be specified if aggregation is specified.")
        place, newest = _place(request.page_token) or (0, self._metrics.newest())
        found = [each for each in self._metrics.series(metric, project, start, end, newest) if filter_.predicate(_fields(each))]
        for how in (first, second):
            found = aggregated(found, how, start, end)
        chosen, next_place = _page(found, request.page_size, place, headers=request.view == _HEADERS)
        token = f"{next_place}.{newest}" if next_place else ""
        unit = found[0].unit if found else metric.unit
        return monitoring_v3.ListTimeSeriesResponse.pb()(
            time_series=[_series(each, headers=request.view == _HEADERS) for each in chosen], next_page_token=token, unit=unit
        )

    async def CreateTimeSeries(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[metric_service.proto CreateTimeSeries] Metrics of Google's are not written by others, and there are no other ones here."""
        for index, each in enumerate(request.time_series):
            if each.metric.type in METRICS or each.metric.type.startswith("run.googleapis.com/"):
                text = f'Field timeSeries[{index}].metric.type had an invalid value of "{each.metric.type}": it cannot be written.'
                raise Refusal(Code.INVALID_ARGUMENT, text)  # [approximated]
        raise Refusal(Code.UNIMPLEMENTED, "The local cloud keeps no metrics but those of Cloud Run.")

    async def ListMetricDescriptors(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[metric_service.proto ListMetricDescriptors]"""
        project = _project(request.name)
        filter_ = metricfilter.compile(request.filter)
        found = [each for each in METRICS.values() if filter_.predicate({"metric.type": each.type, "project": project})]
        chosen, token = page(found, request.page_size, request.page_token)
        made = [_descriptor(project, each) for each in chosen]
        return monitoring_v3.ListMetricDescriptorsResponse(metric_descriptors=made, next_page_token=token)

    async def GetMetricDescriptor(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[metric_service.proto GetMetricDescriptor]"""
        parent, _, wanted = request.name.partition("/metricDescriptors/")
        project = _project(parent)
        if wanted not in METRICS:
            raise Refusal(Code.NOT_FOUND, f"Could not find descriptor for metric '{wanted}'.")
        return _descriptor(project, METRICS[wanted])

    async def ListMonitoredResourceDescriptors(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[metric_service.proto ListMonitoredResourceDescriptors]"""
        project = _project(request.name)
        filter_ = metricfilter.compile(request.filter)
        found = [_resource_descriptor(project)] if filter_.predicate({"resource.type": RESOURCE, "project": project}) else []
        return monitoring_v3.ListMonitoredResourceDescriptorsResponse(resource_descriptors=found)

    async def GetMonitoredResourceDescriptor(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[metric_service.proto GetMonitoredResourceDescriptor]"""
        parent, _, wanted = request.name.partition("/monitoredResourceDescriptors/")
        project = _project(parent)
        if wanted != RESOURCE:
            raise Refusal(Code.NOT_FOUND, f"The monitored resource descriptor '{wanted}' could not be found.")  # [approximated]
        return _resource_descriptor(project)


def _project(name: str) -> str:
    found = _PROJECT.fullmatch(name)
    if not found:
        raise Refusal(Code.INVALID_ARGUMENT, f'Field name had an invalid value of "{name}": use projects/PROJECT.')  # [approximated]
    return found[1]


def _interval(wanted: Any) -> tuple[int, int]:
    """The interval in nanoseconds: (start, end]; without a start it is the moment of its end."""
    if not wanted.interval.HasField("end_time"):
        raise Refusal(Code.INVALID_ARGUMENT, 'Field interval.endTime had an invalid value of "": it is required.')  # [approximated]
    end = _nanoseconds("interval.endTime", wanted.interval.end_time)
    start = _nanoseconds("interval.startTime", wanted.interval.start_time) if wanted.interval.HasField("start_time") else end - 1
    if start > end:
        text = f'Field interval.startTime had an invalid value of "{wanted.interval.start_time.ToJsonString()}": it is after the end time.'
        raise Refusal(Code.INVALID_ARGUMENT, text)  # [approximated]
    return start, end


def _nanoseconds(field: str, moment: Any) -> int:
    try:
        moment.ToJsonString()
    except ValueError as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"Field {field} had an invalid value: {error}.") from None  # [approximated]
    nanos: int = moment.ToNanoseconds()
    return max(-_INT64, min(_INT64, nanos))  # 64 bits end in the year 2262


def _metric_of(filter_: Filter, text: str) -> Metric:
    """The one metric that a filter must name."""
    if "metric.type" not in filter_.fields:  # [from memory]
        why = 'must specify a restriction on "metric.type" in the filter; see "https://cloud.google.com/monitoring/api/resources" for a '
        raise metricfilter.invalid(text, why + "list of available metric types.")
    if len(set(filter_.types)) != 1:  # [approximated]
        raise metricfilter.invalid(text, "The filter must specify a single metric type.")
    metric = METRICS.get(filter_.types[0])
    if metric is None:  # [real text]
        why = f'Cannot find metric(s) that match type = "{filter_.types[0]}". If a metric was created recently, it could take up to 10 '
        raise Refusal(Code.NOT_FOUND, why + "minutes to become available. Please try again soon.")
    known = {"metric.type", "resource.type", "project"}
    known |= {f"metric.labels.{each}" for each in metric.labels} | {f"resource.labels.{each}" for each in RESOURCE_LABELS}
    if any(each != RESOURCE for each in filter_.resources) or not filter_.fields <= known:  # [real text]
        why = "The supplied filter does not specify a valid combination of metric and monitored resource descriptors. "
        raise Refusal(Code.INVALID_ARGUMENT, why + "The query will not return any time series.")
    return metric


def _fields(series: Series) -> dict[str, str]:
    fields = {"metric.type": series.metric, "resource.type": RESOURCE, "project": dict(series.resource)["project_id"]}
    fields |= {f"metric.labels.{key}": value for key, value in series.labels}
    return fields | {f"resource.labels.{key}": value for key, value in series.resource}


def _aggregation(given: Any) -> Aggregation:
    names = monitoring_v3.Aggregation
    try:
        aligner, reducer = names.Aligner(given.per_series_aligner).name, names.Reducer(given.cross_series_reducer).name
    except ValueError as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"Field aggregation had an invalid value: {error}.") from None  # [approximated]
    return Aggregation(given.alignment_period.ToNanoseconds(), aligner, reducer, tuple(given.group_by_fields))


def _place(token: str) -> tuple[int, int] | None:
    """Where a page begins, and how far the samples went when the first one was asked for."""
    if not token:
        return None
    parts = re.fullmatch(r"([0-9]{1,12})\.([0-9]{1,18})", token)
    if not parts:
        raise Refusal(Code.INVALID_ARGUMENT, f"page_token {token[:40]!r} was not given out by this service.")
    return int(parts[1]), int(parts[2])


def _page(found: list[Series], size: int, first: int, *, headers: bool) -> tuple[list[Series], int]:
    """So many points, or so many series where only they are asked for; and where the next page begins (0: there is none)."""
    if size < 0:
        raise Refusal(Code.INVALID_ARGUMENT, f"page_size is {size}; it must not be negative.")
    most = _MOST_DISTRIBUTIONS if found and found[0].value_type == "DISTRIBUTION" else _MOST_POINTS
    last = first + min(size or most, most)
    if headers:
        return found[first:last], last if last < len(found) else 0
    chosen, before = [], 0
    for series in found:
        inside = series.points[max(0, first - before) : max(0, last - before)]
        before += len(series.points)
        if inside:
            chosen.append(replace(series, points=inside))
    return chosen, last if last < before else 0


def _series(series: Series, *, headers: bool) -> Any:
    made = monitoring_v3.TimeSeries.pb()(metric_kind=_KINDS.Value(series.kind), value_type=_TYPES.Value(series.value_type))
    made.metric.type, made.resource.type = series.metric, RESOURCE
    made.metric.labels.update(series.labels)
    made.resource.labels.update(series.resource)
    if not headers:
        made.unit = series.unit
        made.points.extend(_point(each) for each in series.points)
    return made


def _point(point: Point) -> Any:
    made = monitoring_v3.Point.pb()()
    made.interval.start_time.FromNanoseconds(point.start)
    made.interval.end_time.FromNanoseconds(point.end)
    if isinstance(point.value, Distribution):
        made.value.distribution_value.CopyFrom(_of(point.value))
    elif isinstance(point.value, int):
        made.value.int64_value = point.value
    else:
        made.value.double_value = point.value
    return made


def _of(value: Distribution) -> Any:
    made = _distribution.Distribution(count=value.count, mean=value.mean, sum_of_squared_deviation=value.squares)
    made.bucket_counts.extend(value.counts)
    buckets: Buckets = value.buckets
    if buckets.factor:
        options = made.bucket_options.exponential_buckets
        options.num_finite_buckets, options.growth_factor, options.scale = buckets.finite, buckets.factor, buckets.scale
    else:
        linear = made.bucket_options.linear_buckets
        linear.num_finite_buckets, linear.width, linear.offset = buckets.finite, buckets.width, 0
    return made


def _labels(names: Iterable[str]) -> list[Any]:
    return [_label.LabelDescriptor(key=name, value_type=_label.LabelDescriptor.STRING) for name in names]


def _descriptor(project: str, metric: Metric) -> Any:
    made = _metric.MetricDescriptor(
        name=f"projects/{project}/metricDescriptors/{metric.type}",
        type=metric.type,
        labels=_labels(metric.labels),
        metric_kind=_KINDS.Value(metric.kind),
        value_type=_TYPES.Value(metric.value_type),
        unit=metric.unit,
        description=metric.about,
        display_name=metric.name,
        monitored_resource_types=[RESOURCE],
    )
    made.metadata.sample_period.FromSeconds(60)
    made.metadata.ingest_delay.FromSeconds(180)
    return made


def _resource_descriptor(project: str) -> Any:
    return _resource.MonitoredResourceDescriptor(
        name=f"projects/{project}/monitoredResourceDescriptors/{RESOURCE}",
        type=RESOURCE,
        display_name="Cloud Run Revision",
        description="A revision in Cloud Run.",
        labels=_labels(RESOURCE_LABELS),
    )
