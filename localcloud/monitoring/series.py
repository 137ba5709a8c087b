"""Time series as Cloud Monitoring has them: the metrics that there are, distributions, points."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["GAUGE", "DELTA"]
ValueType = Literal["INT64", "DOUBLE", "DISTRIBUTION"]
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Buckets:
    """The borders of a distribution's buckets: exponential (`factor`) or linear (`width`) [google/api/distribution.proto]."""

    finite: int
    scale: float = 0.0
    factor: float = 0.0
    width: float = 0.0
    bounds: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        borders = (self.scale * self.factor**i if self.factor else self.width * i for i in range(self.finite + 1))
        object.__setattr__(self, "bounds", tuple(borders))

    def index(self, value: float) -> int:
        """The bucket of a value: 0 is below the first border, `finite` + 1 is from the last one on."""
        return bisect_right(self.bounds, value)

    def borders(self, index: int) -> tuple[float, float]:
        """The lowest and the highest value of a bucket; nothing here is below 0, and above the last border nothing is known."""
        low = self.bounds[index - 1] if index else 0.0
        return low, self.bounds[index] if index < len(self.bounds) else low


MILLISECONDS = Buckets(finite=66, scale=1.0, factor=1.4)  # [approximated: those of other latencies of Google's front ends]
FRACTIONS = Buckets(finite=100, width=0.01)  # [approximated]


@dataclass(frozen=True, slots=True)  # there may be very many
class Distribution:
    """How often which values were met: `squares` is the sum of the squared deviations from the mean."""

    buckets: Buckets
    count: int
    mean: float
    squares: float
    counts: tuple[int, ...]  # by bucket; what is missing at its end is 0

    def percentile(self, percent: float) -> float:
        """The value below which so many percent are, taken as evenly spread within a bucket."""
        rank, before = percent / 100 * self.count, 0
        for index, count in enumerate(self.counts):
            if count and before + count >= rank:
                low, high = self.buckets.borders(index)
                return low + (high - low) * (rank - before) / count
            before += count
        return 0.0


def merged(parts: Iterable[Distribution]) -> Distribution:
    """One distribution of all values of several."""
    found = list(parts)
    total = sum(each.count for each in found)
    mean = sum(each.mean * each.count for each in found) / total if total else 0.0
    squares = sum(each.squares + each.count * (each.mean - mean) ** 2 for each in found)
    width = max((len(each.counts) for each in found), default=0)
    counts = tuple(sum(each.counts[i] for each in found if i < len(each.counts)) for i in range(width))
    return Distribution(found[0].buckets if found else FRACTIONS, total, mean, squares, counts)


class Tally:
    """A distribution in the making."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self.count, self._sum, self._squared, self._counts = 0, 0.0, 0.0, [0] * (buckets.finite + 2)

    def add(self, value: float) -> None:
        """Meet one value."""
        self.count += 1
        self._sum += value
        self._squared += value * value
        self._counts[self._buckets.index(value)] += 1

    def distribution(self) -> Distribution:
        """What was met until now."""
        mean = self._sum / self.count if self.count else 0.0
        last = max((i for i, count in enumerate(self._counts) if count), default=-1)
        squares = max(0.0, self._squared - self.count * mean * mean)
        return Distribution(self._buckets, self.count, mean, squares, tuple(self._counts[: last + 1]))


Value = int | float | Distribution


@dataclass(frozen=True, slots=True)  # there may be very many
class Point:
    """A value of an interval, in nanoseconds since the epoch; a gauge's begins where it ends."""

    start: int
    end: int
    value: Value


@dataclass(frozen=True)
class Series:
    """Points of one metric with one set of labels, newest first."""

    metric: str
    labels: Labels
    resource: Labels
    kind: Kind
    value_type: ValueType
    unit: str
    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A metric of Cloud Run [https://cloud.google.com/monitoring/api/metrics_gcp, run]."""

    type: str
    kind: Kind
    value_type: ValueType
    unit: str
    name: str
    about: str
    labels: tuple[str, ...] = ()
    buckets: Buckets = MILLISECONDS


RESOURCE = "cloud_run_revision"
RESOURCE_LABELS = ("project_id", "service_name", "revision_name", "location", "configuration_name")
_CODES = ("response_code", "response_code_class")
REQUESTS = Metric(
    "run.googleapis.com/request_count", "DELTA", "INT64", "1", "Request Count",
    "Number of requests reaching the revision.", _CODES,
)  # fmt: skip
LATENCIES = Metric(
    "run.googleapis.com/request_latencies", "DELTA", "DISTRIBUTION", "ms", "Request Latency",
    "Distribution of request latency in milliseconds reaching the revision.", _CODES,
)  # fmt: skip
INSTANCES = Metric(
    "run.googleapis.com/container/instance_count", "GAUGE", "INT64", "1", "Instance Count",
    "Number of container instances that exist, by state.", ("state",),
)  # fmt: skip
CPU = Metric(
    "run.googleapis.com/container/cpu/utilizations", "DELTA", "DISTRIBUTION", "10^2.%", "Container CPU Utilization",
    "Container CPU utilization distribution across all container instances.", (), FRACTIONS,
)  # fmt: skip
MEMORY = Metric(
    "run.googleapis.com/container/memory/utilizations", "DELTA", "DISTRIBUTION", "10^2.%", "Container Memory Utilization",
    "Container memory utilization distribution across all container instances.", (), FRACTIONS,
)  # fmt: skip
STARTUPS = Metric(
    "run.googleapis.com/container/startup_latencies", "DELTA", "DISTRIBUTION", "ms", "Container Startup Latency",
    "Distribution of time spent starting a new container instance in milliseconds.",
)  # fmt: skip
BILLED = Metric(
    "run.googleapis.com/container/billable_instance_time", "DELTA", "DOUBLE", "s", "Billable Instance Time",
    "Billable time aggregated from all container instances.",
)  # fmt: skip
METRICS = {each.type: each for each in (REQUESTS, LATENCIES, INSTANCES, CPU, MEMORY, STARTUPS, BILLED)}


def percentile(values: list[float], percent: float) -> float:
    """A percentile of numbers, between the two that are nearest to it."""
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
