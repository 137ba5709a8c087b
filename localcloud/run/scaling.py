"""How many instances a revision has at the least and at the most, by its own settings and its service's.

The rules and examples: https://cloud.google.com/run/docs/configuring/min-instances#service-and-revision-level-min-instances
"""

from collections.abc import Mapping
from dataclasses import dataclass

from google.cloud import run_v2

DEFAULT_MOST = 100


@dataclass(frozen=True)
class Limits:
    """The least and the greatest number of instances; `most` is never below `least`."""

    least: int
    most: int


def limits(service: run_v2.ServiceScaling, revision: run_v2.RevisionScaling, percents: Mapping[str, int], name: str) -> Limits:
    """The limits of the revision `name` where traffic goes by `percents` (of every target, in their order, by revision).

    The service's numbers are divided among the revisions with traffic; the lower maximum wins, then the higher minimum, within it.
    Without traffic nothing is kept. Manual scaling ignores the revision's own numbers where there is traffic.
    """
    own = revision.max_instance_count or DEFAULT_MOST
    if not percents.get(name):
        return Limits(0, own)
    if service.scaling_mode == run_v2.ServiceScaling.ScalingMode.MANUAL:
        total = service.manual_instance_count or 0
        count = max(_divided(total, percents)[name], min(total, 1))
        return Limits(count, count)
    most = own
    if service.max_instance_count:  # who has traffic can serve it [approximated: one at the least]
        most = min(most, max(_divided(service.max_instance_count, percents)[name], 1))
    share = _divided(service.min_instance_count, percents)[name]
    return Limits(min(max(revision.min_instance_count, share), most), most)


def _divided(total: int, percents: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers by the percentages; what rounding leaves goes by the largest fractions, the first named before the others.

    That the first named comes first is documented for equal shares; the largest fraction is [approximated].
    """
    whole = sum(percents.values())
    shares = {name: total * percent // whole for name, percent in percents.items()}
    by_fraction = sorted(percents, key=lambda name: -(total * percents[name] % whole))
    for name in by_fraction[: total - sum(shares.values())]:
        shares[name] += 1
    return shares
