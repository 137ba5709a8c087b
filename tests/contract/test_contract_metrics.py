"""Prometheus' text: declared by # HELP and # TYPE, with or without samples."""

import math

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from relais.config import MetricGroup
from relais.contract import group_lines, increment_finding, metric_findings, parse_metrics, sample

PAGE = """\
# HELP memory_preferences_extracted_total Preferences, intents and constraints found.
# TYPE memory_preferences_extracted_total counter
memory_preferences_extracted_total{type="preference"} 1.0
memory_preferences_extracted_total{type="intent",model="a \\"b\\" } \\\\ c"} 2
# HELP memory_preferences_confidence Confidence
# TYPE memory_preferences_confidence histogram
memory_preferences_confidence_bucket{le="0.6"} 0.0
memory_preferences_confidence_bucket{le="+Inf"} 3.0 1700000000
memory_preferences_confidence_count 3.0
memory_preferences_confidence_sum 2.1
# HELP memory_preferences_llm_calls_total Calls
# TYPE memory_preferences_llm_calls_total counter
# HELP cache_size Size
# TYPE cache_size gauge
cache_size NaN
bare_metric 7
"""


def group(*names: str, **values: str) -> MetricGroup:
    return MetricGroup.model_validate({"group": "P1 préférences", "names": names, "values": values})


def test_a_metric_that_is_declared_without_a_sample_is_published() -> None:
    (finding,) = metric_findings([group("memory_preferences_llm_calls_total", "memory_preferences_confidence")], parse_metrics(PAGE))
    assert (finding.name, finding.kind, finding.outcome) == ("metrics: P1 préférences", "metrics", "passed")
    assert finding.detail == "2 of 2 published"


def test_an_absent_metric_is_named_with_what_absence_means() -> None:
    (finding,) = metric_findings([group("cache_size", "gone_total", "also_gone")], parse_metrics(PAGE))
    assert finding.outcome == "failed"
    assert "1 of 3 published; absent: gone_total, also_gone" in finding.detail
    assert "the module that defines it is not loaded" in finding.detail


WITHOUT = [("# Metrics disabled\n", "it begins with '# Metrics disabled'"), ("", "the answer is empty"), ("<p>\n</p>", "begins with '<p>'")]


@pytest.mark.parametrize(("text", "said"), WITHOUT)
def test_a_page_without_metrics_fails_whatever_its_status(text: str, said: str) -> None:
    (finding,) = metric_findings([group("cache_size")], parse_metrics(text))
    assert finding.outcome == "failed"
    assert said in finding.detail


def test_a_mention_in_a_comment_does_not_publish_a_metric() -> None:
    metrics = parse_metrics("# cache_size is off\n# HELPER cache_size\ncache_size\n")
    assert not metrics
    assert not metrics.publishes("cache_size")


@pytest.mark.parametrize("name", ["x", "x_total"])
@pytest.mark.parametrize("declared", ["x", "x_total"])
def test_a_counter_is_known_with_and_without_total(name: str, declared: str) -> None:
    metrics = parse_metrics(f"# TYPE {declared} counter\nx_total 4\n# EOF")
    assert metrics.publishes(name)
    assert sample(metrics, name) == 4


def test_only_a_counter_has_two_spellings() -> None:
    metrics = parse_metrics("# TYPE x gauge\nx 4\n")
    assert not metrics.publishes("x_total")


def test_the_parts_of_a_histogram_are_published_by_it_and_its_name_counts_observations() -> None:
    metrics = parse_metrics(PAGE)
    assert all(metrics.publishes(f"memory_preferences_confidence_{part}") for part in ("bucket", "sum", "count"))
    assert not metrics.publishes("cache_size_bucket")
    assert sample(metrics, "memory_preferences_confidence") == 3
    assert sample(metrics, 'memory_preferences_confidence_bucket{le="+Inf"}') == 3


SERIES = [
    ('memory_preferences_extracted_total{type="preference"}', 1.0),
    ('memory_preferences_extracted_total{type="constraint"}', 0.0),
    ("memory_preferences_extracted_total", 3.0),
    ('memory_preferences_extracted_total{model="a \\"b\\" } \\\\ c"}', 2.0),
    ("memory_preferences_llm_calls_total", 0.0),
    ("bare_metric", 7.0),
    ("gone_total", None),
]


@pytest.mark.parametrize(("selector", "value"), SERIES)
def test_a_series_has_its_sum_or_zero_where_it_is_declared_and_none_where_not(selector: str, value: float | None) -> None:
    assert sample(parse_metrics(PAGE), selector) == value


def test_series_are_compared_with_what_the_release_file_says() -> None:
    values = {"bare_metric": ">= 8", 'memory_preferences_extracted_total{type="intent"}': "== 2"}
    asked = MetricGroup.model_validate({"group": "g", "names": ["bare_metric"], "values": values})
    (finding,) = metric_findings([asked], parse_metrics(PAGE))
    assert finding.outcome == "failed"
    assert finding.detail == "1 of 1 published; bare_metric >= 8 expected, it is 7"


def test_the_report_gets_the_sample_lines_of_each_group() -> None:
    lines = group_lines([group("memory_preferences_confidence", "memory_preferences_llm_calls_total")], parse_metrics(PAGE))
    assert lines["P1 préférences"].splitlines()[0] == 'memory_preferences_confidence_bucket{le="0.6"} 0.0'
    assert len(lines["P1 préférences"].splitlines()) == 4


INCREMENTS = [
    (0.0, 1.0, "passed", "0 -> 1"),
    (3.0, 3.0, "failed", "3 -> 3: it did not grow"),
    (5.0, 1.0, "not proven", "another instance answered"),
    (None, 1.0, "not proven", "not read before"),
    (0.0, None, "failed", "not published"),
    (None, None, "failed", "not published"),
]


@pytest.mark.parametrize(("before", "after", "outcome", "said"), INCREMENTS)
def test_a_counter_has_grown_only_between_two_looks(before: float | None, after: float | None, outcome: str, said: str) -> None:
    finding = increment_finding("x_total", before, after, required=False)
    assert (finding.outcome, finding.required, finding.kind) == (outcome, False, "counter")
    assert said in finding.detail


@pytest.mark.parametrize("generate", [prometheus_client.generate_latest, openmetrics])
def test_what_the_official_library_writes_is_read(generate: "type[prometheus_client.generate_latest]") -> None:
    registry = prometheus_client.CollectorRegistry()
    counter = prometheus_client.Counter("kinds_total", "by kind", ["kind"], registry=registry)
    prometheus_client.Counter("quiet", "labelled, never counted", ["kind"], registry=registry)
    histogram = prometheus_client.Histogram("spent_seconds", "time", registry=registry)
    histogram.observe(0.5)
    counter.labels(kind='a "quoted"\nkind\\').inc(2)
    metrics = parse_metrics(generate(registry).decode())
    assert all(metrics.publishes(name) for name in ("kinds_total", "kinds", "quiet_total", "quiet", "spent_seconds", "spent_seconds_count"))
    assert sample(metrics, "kinds_total") == 2
    assert sample(metrics, 'kinds_total{kind="a \\"quoted\\"\\nkind\\\\"}') == 2
    assert sample(metrics, 'quiet_total{kind="x"}') == 0
    assert sample(metrics, "spent_seconds") == 1


lines = st.lists(
    st.text(max_size=40)
    | st.from_regex(r'# (HELP|TYPE) [a-z_]{1,8}( (counter|gauge|histogram|summary))?', fullmatch=True)
    | st.from_regex(r'[a-z_]{1,8}(\{a="[^"\\\n]{0,4}"\})? (-?[0-9.]{1,6}|NaN|\+Inf|1e3)', fullmatch=True),
    max_size=12,
)  # fmt: skip


@given(lines, st.text(max_size=30))
def test_any_text_is_a_page_of_metrics(page: list[str], selector: str) -> None:
    metrics = parse_metrics("\n".join(page))
    for name in [*metrics.types, *(found.name for found in metrics.samples)]:
        assert metrics.publishes(name)
        value = sample(metrics, name)
        assert value is not None
        assert not math.isnan(value) or any(math.isinf(found.value) for found in metrics.samples)
    sample(metrics, selector)
    assert metric_findings([group("a")], metrics)[0].outcome in ("passed", "failed")
