"""Alignment and reduction of time series (google/monitoring/v3/common.proto, Aggregation): values in, values out."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from localcloud.monitoring.series import Distribution, Kind, Labels, Point, Series, Value, ValueType, merged, percentile
from localcloud.wire import Code, Refusal

_PERCENTILES = {"PERCENTILE_99": 99.0, "PERCENTILE_95": 95.0, "PERCENTILE_50": 50.0, "PERCENTILE_05": 5.0}
_Rule = tuple[tuple[Kind, ...], tuple[ValueType, ...], Kind | None, ValueType | None]
_BOTH: tuple[Kind, ...] = ("GAUGE", "DELTA")
_NUMBERS: tuple[ValueType, ...] = ("INT64", "DOUBLE")
_ALL: tuple[ValueType, ...] = (*_NUMBERS, "DISTRIBUTION")
_ALIGNERS: dict[str, _Rule] = {  # what each can be applied to, and what it makes (None: the same)
    "DELTA": (("DELTA",), _ALL, "DELTA", None),
    "RATE": (("DELTA",), _NUMBERS, "GAUGE", "DOUBLE"),
    "SUM": (_BOTH, _ALL, None, None),
    "NEXT_OLDER": (("GAUGE",), _ALL, "GAUGE", None),
    "MIN": (_BOTH, _NUMBERS, "GAUGE", None),
    "MAX": (_BOTH, _NUMBERS, "GAUGE", None),
    "MEAN": (_BOTH, _NUMBERS, "GAUGE", "DOUBLE"),
    "STDDEV": (_BOTH, _NUMBERS, "GAUGE", "DOUBLE"),
    "COUNT": (_BOTH, _NUMBERS, "GAUGE", "INT64"),
    **{name: (_BOTH, ("DISTRIBUTION",), "GAUGE", "DOUBLE") for name in _PERCENTILES},
}
_BOOLEAN: _Rule = ((), (), None, None)  # aligners of true and false, which no metric of Cloud Run is
_NOT_SERVED = {"ALIGN_INTERPOLATE", "ALIGN_PERCENT_CHANGE"}


@dataclass(frozen=True)
class Aggregation:
    """How series are brought together: names as in the enumerations, the period in nanoseconds."""

    period: int = 0
    aligner: str = "ALIGN_NONE"
    reducer: str = "REDUCE_NONE"
    group_by: tuple[str, ...] = ()


def aggregated(found: list[Series], how: Aggregation, start: int, end: int) -> list[Series]:
    """Align every series to periods that end at `end` or whole periods before, and reduce the series of each group to one."""
    if how.aligner == "ALIGN_NONE":
        if how.reducer != "REDUCE_NONE":
            raise _invalid("crossSeriesReducer", how.reducer, "The reducer requires that the time series be aligned.")  # [approximated]
        return found
    if how.period < 60 * 10**9:
        text = f"{how.period // 10**9}s"
        raise _invalid("alignmentPeriod", text, "The alignment period must be at least 60s.")  # [approximated: the bound is the real one]
    aligned = [each for each in (_aligned(series, how, start, end) for series in found) if each.points]
    return aligned if how.reducer == "REDUCE_NONE" else _reduced(aligned, how)


# alignment


def _aligned(series: Series, how: Aggregation, start: int, end: int) -> Series:
    name = how.aligner.removeprefix("ALIGN_")
    kind, value_type = _outcome(series, how.aligner)
    windows: dict[int, list[Point]] = {}
    for point in series.points:
        if start < point.end <= end:
            windows.setdefault((end - point.end) // how.period, []).append(point)
    points = []
    for back, inside in sorted(windows.items()):
        last = end - back * how.period
        first = last - how.period if kind == "DELTA" else last
        points.append(Point(first, last, _value(name, inside, how.period)))
    unit = {"RATE": f"{series.unit}/s", "COUNT": "1"}.get(name, series.unit)
    return replace(series, kind=kind, value_type=value_type, unit=unit, points=tuple(points))


def _outcome(series: Series, aligner: str) -> tuple[Kind, ValueType]:
    """The kind and the type that an aligner makes; one that does not fit is refused [real text]."""
    if aligner in _NOT_SERVED:
        raise Refusal(Code.UNIMPLEMENTED, f"The local cloud does not serve {aligner}.")
    kinds, types, kind, value_type = _ALIGNERS.get(aligner.removeprefix("ALIGN_"), _BOOLEAN)
    if series.kind not in kinds or series.value_type not in types:
        text = f"The aligner cannot be applied to metrics with kind {series.kind} and value type {series.value_type}."
        raise _invalid("perSeriesAligner", aligner, text)
    return kind or series.kind, value_type or series.value_type


def _value(name: str, inside: list[Point], period: int) -> Value:
    if name == "RATE":
        return sum(_numbers(point.value for point in inside)) / (period / 10**9)
    if name == "NEXT_OLDER":
        return max(inside, key=lambda point: point.end).value
    return _combined("SUM" if name == "DELTA" else name, [point.value for point in inside])


# reduction


def _reduced(aligned: list[Series], how: Aggregation) -> list[Series]:
    groups: dict[tuple[Labels, Labels], list[Series]] = {}
    for series in aligned:
        groups.setdefault(_kept(series, how.group_by), []).append(series)
    return [_one(groups[key], key, how.reducer) for key in sorted(groups)]


def _kept(series: Series, fields: tuple[str, ...]) -> tuple[Labels, Labels]:
    """The labels of the metric and of the resource that a reduction keeps; the project is always kept."""
    names: dict[str, set[str]] = {"metric": set(), "resource": {"project_id"}}
    for each in fields:
        parts = each.split(".")
        if len(parts) == 3 and parts[0] in names and parts[1] in {"label", "labels"}:
            names[parts[0]].add(parts[2])
        elif each not in {"project", "resource.type", "metric.type"}:
            raise _invalid("groupByFields", each, "Unknown field; use metric.labels.KEY or resource.labels.KEY.")  # [approximated]
    metric = tuple(pair for pair in series.labels if pair[0] in names["metric"])
    return metric, tuple(pair for pair in series.resource if pair[0] in names["resource"])


def _one(group: list[Series], kept: tuple[Labels, Labels], reducer: str) -> Series:
    name, first = reducer.removeprefix("REDUCE_"), group[0]
    numeric = first.value_type != "DISTRIBUTION"
    allowed = {"MEAN", "SUM", "COUNT", "STDDEV", *_PERCENTILES} | ({"MIN", "MAX"} if numeric else set())
    if name not in allowed:
        text = f"The reducer cannot be applied to metrics with kind {first.kind} and value type {first.value_type}."
        raise _invalid("crossSeriesReducer", reducer, text)
    if name in {"SUM", "MIN", "MAX"}:
        value_type, kind = first.value_type, first.kind if name == "SUM" else "GAUGE"
    else:
        value_type, kind = "INT64" if name == "COUNT" else "DOUBLE", "GAUGE"
    moments: dict[int, list[Value]] = {}
    for series in group:
        for point in series.points:
            moments.setdefault(point.end, []).append(point.value)
    length = first.points[0].end - first.points[0].start if kind == "DELTA" else 0
    points = tuple(Point(end - length, end, _combined(name, moments[end])) for end in sorted(moments, reverse=True))
    unit = "1" if name == "COUNT" else first.unit
    return Series(first.metric, kept[0], kept[1], kind, value_type, unit, points)


# both


def _combined(name: str, values: list[Value]) -> Value:
    if name == "COUNT":
        return len(values)
    distributions = [each for each in values if isinstance(each, Distribution)]
    if distributions:
        return _of_distribution(name, merged(distributions))
    numbers = _numbers(values)
    if name in _PERCENTILES:
        return percentile([float(each) for each in numbers], _PERCENTILES[name])
    mean = sum(numbers) / len(numbers)
    by_name: dict[str, Callable[[], int | float]] = {
        "SUM": lambda: sum(numbers),
        "MIN": lambda: min(numbers),
        "MAX": lambda: max(numbers),
        "MEAN": lambda: mean,
        "STDDEV": lambda: math.sqrt(sum((each - mean) ** 2 for each in numbers) / len(numbers)),
    }
    return by_name[name]()


def _of_distribution(name: str, all_values: Distribution) -> Value:
    if name in _PERCENTILES:
        return all_values.percentile(_PERCENTILES[name])
    if name == "MEAN":
        return all_values.mean
    if name == "STDDEV":
        return math.sqrt(all_values.squares / all_values.count) if all_values.count else 0.0
    return all_values


def _numbers(values: Iterable[Value]) -> list[int | float]:
    return [each for each in values if not isinstance(each, Distribution)]


def _invalid(field: str, value: str, text: str) -> Refusal:
    return Refusal(Code.INVALID_ARGUMENT, f'Field aggregation.{field} had an invalid value of "{value}": {text}')
