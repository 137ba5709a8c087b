"""Alignment, reduction, percentiles and filters of Monitoring, in tables whose values were worked out by hand."""

import math
import random
import statistics

import pytest

from localcloud.monitoring import metricfilter
from localcloud.monitoring.alignment import Aggregation, aggregated
from localcloud.monitoring.series import MILLISECONDS, Buckets, Distribution, Labels, Point, Series, Tally, Value, merged, percentile
from localcloud.wire import Refusal

S = 10**9
LINEAR = Buckets(finite=4, width=10.0)


def series(kind: str, value_type: str, values: dict[int, Value], revision: str = "a", code: str = "200") -> Series:
    """Points by the second at which they end; a delta's began 60 s before."""
    length = 60 * S if kind == "DELTA" else 0
    points = tuple(Point(end * S - length, end * S, value) for end, value in sorted(values.items(), reverse=True))
    resource: Labels = (("project_id", "p"), ("revision_name", revision))
    return Series("m", (("response_code", code),), resource, kind, value_type, "1", points)  # type: ignore[arg-type]


def spread(*counts: int) -> Distribution:
    """Values in the middle of linear buckets: below 0, 0 to 10, 10 to 20, 20 to 30, 30 to 40, above."""
    tally = Tally(LINEAR)
    for index, count in enumerate(counts):
        for _ in range(count):
            tally.add(index * 10 - 5)
    return tally.distribution()


COUNTS: dict[int, Value] = {60: 6, 120: 0, 180: 12, 240: 3}  # the interval of these tables is (0, 240]


@pytest.mark.parametrize(
    ("aligner", "seconds", "values"),
    [
        ("ALIGN_SUM", 120, {240: 15, 120: 6}),
        ("ALIGN_DELTA", 120, {240: 15, 120: 6}),
        ("ALIGN_SUM", 180, {240: 15, 60: 6}),  # periods end at the interval's end: (60, 240] and (-120, 60]
        ("ALIGN_RATE", 120, {240: 0.125, 120: 0.05}),
        ("ALIGN_MEAN", 240, {240: 5.25}),
        ("ALIGN_MIN", 240, {240: 0}),
        ("ALIGN_MAX", 240, {240: 12}),
        ("ALIGN_COUNT", 180, {240: 3, 60: 1}),
        ("ALIGN_STDDEV", 240, {240: math.sqrt((0.75**2 + 5.25**2 + 6.75**2 + 2.25**2) / 4)}),
    ],
)
def test_counts_are_aligned(aligner: str, seconds: int, values: dict[int, float]) -> None:
    (found,) = aggregated([series("DELTA", "INT64", COUNTS)], Aggregation(seconds * S, aligner), 0, 240 * S)
    assert {point.end // S: point.value for point in found.points} == pytest.approx(values)
    length = seconds * S if aligner in {"ALIGN_SUM", "ALIGN_DELTA"} else 0
    assert all(point.end - point.start == length for point in found.points)
    assert [point.end for point in found.points] == sorted((point.end for point in found.points), reverse=True)


def test_a_gauge_is_aligned_to_its_newest_value() -> None:
    (found,) = aggregated([series("GAUGE", "INT64", {70: 1, 110: 4, 130: 2})], Aggregation(60 * S, "ALIGN_NEXT_OLDER"), 0, 240 * S)
    assert {point.end // S: point.value for point in found.points} == {180: 2, 120: 4}


@pytest.mark.parametrize(
    ("aligner", "kind", "value_type"),
    [
        ("ALIGN_RATE", "GAUGE", "INT64"),
        ("ALIGN_DELTA", "GAUGE", "INT64"),
        ("ALIGN_NEXT_OLDER", "DELTA", "INT64"),
        ("ALIGN_RATE", "DELTA", "DISTRIBUTION"),
        ("ALIGN_MEAN", "DELTA", "DISTRIBUTION"),
        ("ALIGN_COUNT", "DELTA", "DISTRIBUTION"),
        ("ALIGN_PERCENTILE_99", "DELTA", "INT64"),
        ("ALIGN_COUNT_TRUE", "GAUGE", "INT64"),
    ],
)
def test_an_aligner_is_refused_for_what_it_does_not_fit(aligner: str, kind: str, value_type: str) -> None:
    value: Value = spread(0, 1) if value_type == "DISTRIBUTION" else 1
    with pytest.raises(Refusal, match=f"cannot be applied to metrics with kind {kind} and value type {value_type}"):
        aggregated([series(kind, value_type, {60: value})], Aggregation(60 * S, aligner), 0, 60 * S)


@pytest.mark.parametrize(
    ("counts", "percent", "value"),
    [
        ((0, 10), 50, 5.0),  # ten values in 0 to 10: half of them lie below 5
        ((0, 10), 99, 9.9),
        ((0, 5, 0, 5), 50, 10.0),
        ((0, 5, 0, 5), 95, 29.0),  # 9.5 of 10: 4.5 of the 5 in 20 to 30
        ((0, 1, 2, 1), 50, 15.0),
        ((0, 0, 4), 5, 10.5),
        ((0, 0, 0, 0, 0, 3), 50, 40.0),  # above the last border nothing more is known
    ],
)
def test_percentiles_are_taken_evenly_within_a_bucket(counts: tuple[int, ...], percent: float, value: float) -> None:
    assert spread(*counts).percentile(percent) == pytest.approx(value)


def test_a_distribution_has_the_mean_and_the_deviation_of_its_values() -> None:
    chance = random.Random(7)
    values = [chance.uniform(1, 900) for _ in range(200)]
    parts = []
    for chunk in (values[:50], values[50:60], values[60:]):
        tally = Tally(MILLISECONDS)
        for value in chunk:
            tally.add(value)
        parts.append(tally.distribution())
    whole = merged(parts)
    assert (whole.count, sum(whole.counts)) == (200, 200)
    assert whole.mean == pytest.approx(statistics.fmean(values))
    assert whole.squares == pytest.approx(statistics.pvariance(values) * 200)
    for percent in (5, 50, 95, 99):
        exact = sorted(values)[math.ceil(percent / 100 * 200) - 1]
        low, high = MILLISECONDS.borders(MILLISECONDS.index(exact))
        assert low / 1.4 <= whole.percentile(percent) <= high * 1.4


@pytest.mark.parametrize(("value", "index"), [(0.5, 0), (1.0, 1), (1.39, 1), (1.4, 2), (1.97, 3), (1e12, 67)])
def test_exponential_buckets_begin_at_their_lower_border(value: float, index: int) -> None:
    assert MILLISECONDS.index(value) == index


TWO = [series("DELTA", "INT64", {60: 1, 120: 2}, "a"), series("DELTA", "INT64", {60: 10, 120: 20}, "b")]
THREE = [*TWO, series("DELTA", "INT64", {120: 300}, "b", "500")]


@pytest.mark.parametrize(
    ("reducer", "group_by", "values"),
    [
        ("REDUCE_SUM", (), [{120: 322, 60: 11}]),
        ("REDUCE_MEAN", (), [{120: 322 / 3, 60: 5.5}]),
        ("REDUCE_MAX", (), [{120: 300, 60: 10}]),
        ("REDUCE_MIN", (), [{120: 2, 60: 1}]),
        ("REDUCE_COUNT", (), [{120: 3, 60: 2}]),
        ("REDUCE_PERCENTILE_50", (), [{120: 20, 60: 5.5}]),
        ("REDUCE_SUM", ("resource.labels.revision_name",), [{120: 2, 60: 1}, {120: 320, 60: 10}]),
        ("REDUCE_SUM", ("metric.label.response_code",), [{120: 22, 60: 11}, {120: 300}]),
    ],
)
def test_series_are_reduced_by_group(reducer: str, group_by: tuple[str, ...], values: list[dict[int, float]]) -> None:
    found = aggregated(THREE, Aggregation(60 * S, "ALIGN_SUM", reducer, group_by), 0, 120 * S)
    assert [{point.end // S: point.value for point in each.points} for each in found] == [pytest.approx(each) for each in values]


def test_distributions_of_several_series_are_reduced_to_the_percentile_of_all_their_values() -> None:
    both = [series("DELTA", "DISTRIBUTION", {60: spread(0, 9)}, "a"), series("DELTA", "DISTRIBUTION", {60: spread(0, 0, 0, 1)}, "b")]
    (found,) = aggregated(both, Aggregation(60 * S, "ALIGN_DELTA", "REDUCE_PERCENTILE_95"), 0, 60 * S)
    assert found.points[0].value == pytest.approx(25.0)  # 9.5 of 10: half of the one in 20 to 30
    assert (found.kind, found.value_type) == ("GAUGE", "DOUBLE")


def test_a_second_aggregation_takes_what_the_first_gave() -> None:
    first = aggregated(THREE, Aggregation(60 * S, "ALIGN_SUM", "REDUCE_SUM", ("resource.labels.revision_name",)), 0, 120 * S)
    (found,) = aggregated(first, Aggregation(120 * S, "ALIGN_MAX", "REDUCE_SUM"), 0, 120 * S)
    assert [point.value for point in found.points] == [322]


FIELDS = {
    "metric.type": "run.googleapis.com/request_count",
    "metric.labels.response_code_class": "5xx",
    "resource.type": "cloud_run_revision",
    "resource.labels.revision_name": "app-00042-fow",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ('metric.type = "run.googleapis.com/request_count"', True),
        ('metric.label.response_code_class = "5xx"', True),
        ("metric.labels.response_code_class = 5xx", True),
        ('metric.labels.response_code_class != "5xx"', False),
        ('resource.labels.revision_name = starts_with("app-")', True),
        ('resource.labels.revision_name = ends_with("-fox")', False),
        ('resource.labels.revision_name != has_substring("00042")', False),
        ('resource.labels.revision_name : "00042"', True),
        ('resource.labels.revision_name = monitoring.regex.full_match("app-[0-9]+-...")', True),
        ('resource.labels.revision_name = monitoring.regex.full_match("app")', False),
        ('metric.labels.response_code_class = one_of("4xx", "5xx")', True),
        ('NOT metric.labels.response_code_class = "5xx"', False),
        ('metric.labels.response_code_class = "4xx" OR metric.labels.response_code_class = "5xx"', True),
        ('resource.type = "x" AND resource.type = "x" OR resource.type = "cloud_run_revision"', False),  # OR binds tighter
        ('(resource.type = "x" AND resource.type = "x") OR resource.type = "cloud_run_revision"', True),
        ('resource.type = "cloud_run_revision" metric.labels.response_code_class = "4xx"', False),  # side by side is AND
    ],
)
def test_filters_say_which_series(text: str, holds: bool) -> None:
    assert metricfilter.compile(text).predicate(FIELDS) is holds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('metric.type = starts_with(""x"")', "Could not parse filter .* syntax error at line 1, column"),
        ("metric.type", "syntax error"),
        ('group.id = "1"', "'id'"),
        ('metric.type = monitoring.regex.full_match("(")', "regular expression"),
        ('metric.type = starts_with("a", "b")', "one argument"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(Refusal, match=why) as refused:
        metricfilter.compile(text)
    assert refused.value.message.startswith(f'Field filter had an invalid value of "{text}"')


@pytest.mark.parametrize("text", ["x" * 2049, "-" * 2000 + 'project = "p"', "(" * 500])
def test_a_filter_that_is_too_long_or_too_deep_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="Field filter had an invalid value"):
        metricfilter.compile(text)


def test_a_percentile_of_numbers_lies_between_its_neighbours() -> None:
    assert percentile([3, 1, 2, 4], 50) == 2.5
    assert percentile([7], 99) == 7
