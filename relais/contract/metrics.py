"""Prometheus' text: what a service publishes, against what it declares that it will.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from relais.config import MetricGroup
from relais.contract.texts import number, one_line
from relais.model import Finding

_COMMENT = re.compile(r"#\s*(HELP|TYPE|UNIT)[ \t]+([A-Za-z_:][\w:]*)(?:[ \t]+(.*))?", re.ASCII)
_SAMPLE = re.compile(r'([A-Za-z_:][\w:]*)[ \t]*(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]*(\S+)', re.ASCII)
_LABEL = re.compile(r'([A-Za-z_]\w*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"', re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}
_PARTS: Mapping[str, tuple[str, ...]] = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


@dataclass(frozen=True)
class Sample:
    """One line of the text: a series and its value."""

    name: str
    labels: Mapping[str, str]
    value: float
    line: str


@dataclass(frozen=True)
class Metrics:
    """What a metrics page holds; `first` is its first line, for when that is all there is to say about it."""

    types: Mapping[str, str] = field(default_factory=dict)  # every declared name, with its type where # TYPE gives one
    samples: tuple[Sample, ...] = ()
    first: str = ""

    def __bool__(self) -> bool:
        return bool(self.types or self.samples)

    def publishes(self, name: str) -> bool:
        """Whether a name is declared, in any of the spellings and parts that its type has, or has a sample."""
        return self.family(name) is not None or any(found.name == name for found in self.samples)

    def family(self, name: str) -> str | None:
        """The declared name that this is a spelling or a part of."""
        if name in self.types:
            return name
        stem = name.removesuffix("_total")
        for other in (stem, f"{name}_total"):  # OpenMetrics declares `x` and samples `x_total`; Prometheus' own text has x_total for both
            if self.types.get(other) == "counter":
                return other
        for kind, parts in _PARTS.items():
            for part in parts:
                if name.endswith(part) and self.types.get(name.removesuffix(part)) == kind:
                    return name.removesuffix(part)
        return None

    def of(self, name: str) -> Iterator[Sample]:
        """The samples of a name: its own, its other spelling's as a counter, its parts' as a histogram or summary."""
        spellings = {name}
        family = self.family(name)
        if family is not None and self.types[family] == "counter":
            spellings |= {family, f"{family}_total"}
        elif family == name:
            spellings |= {name + part for part in _PARTS.get(self.types[name], ())}
        yield from (found for found in self.samples if found.name in spellings)


def parse_metrics(text: str) -> Metrics:
    """Read a metrics page; a line that is none of the format's is passed over."""
    types: dict[str, str] = {}
    samples: list[Sample] = []
    first = ""
    for raw in text.split("\n"):
        line = raw.strip()
        first = first or line
        if comment := _COMMENT.match(line):
            types.setdefault(comment[2], "")
            if comment[1] == "TYPE":
                types[comment[2]] = (comment[3] or "").strip().lower()
        elif not line.startswith("#") and (found := _SAMPLE.match(line)) and _NUMBER.fullmatch(found[3]):
            samples.append(Sample(found[1], _labels(found[2] or ""), float(found[3]), line))
    return Metrics(types, tuple(samples), one_line(first, 80))


def _labels(text: str) -> dict[str, str]:
    return {name: re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value) for name, value in _LABEL.findall(text)}


def sample(metrics: Metrics, selector: str) -> float | None:
    """The sum of the series that a selector such as 'name{label="x"}' names; 0 where none has counted yet, None where nothing is published.

    A histogram or a summary by its bare name counts its observations.
    """
    name, _, rest = selector.partition("{")
    name, wanted = name.strip(), _labels(rest).items()
    if not metrics.publishes(name):
        return None
    parts = _PARTS.get(metrics.types.get(name, ""))
    return math.fsum(
        found.value
        for found in metrics.of(name)
        if found.labels.items() >= wanted and (parts is None or found.name == f"{name}_count") and not math.isnan(found.value)
    )


def metric_findings(groups: Iterable[MetricGroup], metrics: Metrics) -> list[Finding]:
    """One finding for each group: all of its metrics are published, and its series compare as they should."""
    return [_group(group, metrics) for group in groups]


def _group(group: MetricGroup, metrics: Metrics) -> Finding:
    absent = [name for name in group.names if not metrics.publishes(name)]
    wrong = []
    if not metrics:
        wrong.append(f"the answer holds no metrics: it begins with {metrics.first!r}" if metrics.first else "the answer is empty")
    elif absent:
        wrong.append(f"absent: {', '.join(absent)}; # HELP comes before the first sample, so the module that defines it is not loaded")
    if metrics:
        wrong += [text for series, wanted in group.values.items() if (text := _comparison(metrics, series, wanted))]
    there = len(group.names) - len(absent)
    return Finding(
        name=f"metrics: {group.group}",
        kind="metrics",
        outcome="failed" if wrong else "passed",
        detail=f"{there} of {len(group.names)} published" + "".join(f"; {text}" for text in wrong),
        evidence="" if wrong else "\n".join(_lines(group, metrics)[:40]),
    )


_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


def _comparison(metrics: Metrics, series: str, wanted: str) -> str:
    """What is wrong with a series' value; empty where nothing is."""
    value = sample(metrics, series)
    if value is None:
        return f"{series} {wanted} expected, it is not published"
    sign = next(sign for sign in ("==", "!=", ">=", "<=", ">", "<") if wanted.startswith(sign))
    return "" if _COMPARE[sign](value, float(wanted.removeprefix(sign))) else f"{series} {wanted} expected, it is {number(value)}"


def increment_finding(selector: str, before: float | None, after: float | None, *, required: bool = True) -> Finding:
    """Whether a counter grew between two looks."""

    def finding(outcome: str, detail: str) -> Finding:
        return Finding.model_validate(
            {"name": f"counter {selector}", "kind": "counter", "outcome": outcome, "detail": detail, "required": required}
        )

    if after is None:
        return finding("failed", "it is not published: the module that defines it is not loaded")
    if before is None:
        return finding("not proven", f"it is {number(after)}, but was not read before the request")
    change = f"{number(before)} -> {number(after)}"
    if after > before:
        return finding("passed", change)
    if after < before:
        return finding("not proven", f"{change}: another instance answered, or it was started anew")
    return finding("failed", f"{change}: it did not grow")


def group_lines(groups: Iterable[MetricGroup], metrics: Metrics) -> dict[str, str]:
    """The sample lines of each group as they are now, for the report."""
    return {group.group: "\n".join(_lines(group, metrics)) for group in groups}


def _lines(group: MetricGroup, metrics: Metrics) -> list[str]:
    return list(dict.fromkeys(found.line for name in group.names for found in metrics.of(name)))
