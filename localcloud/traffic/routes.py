"""Who answers a service's requests: plain values that the data plane reads and the reconciler replaces as a whole."""

import random
from dataclasses import dataclass, field

from localcloud.instances.blueprint import Blueprint
from localcloud.traffic.access import Access


@dataclass(frozen=True)
class Share:
    """A revision and its percentage."""

    blueprint: Blueprint
    percent: int


@dataclass(frozen=True)
class Routes:
    """The shares and tags of one service, and who may call it."""

    shares: tuple[Share, ...] = ()
    tags: dict[str, Blueprint] = field(default_factory=dict)
    access: Access = field(default_factory=Access)

    def pick(self, tag: str) -> Blueprint | None:
        """The revision for one request: the tag's own, or one by the percentages; None if nobody serves."""
        if tag:
            return self.tags.get(tag)
        point = random.random() * sum(share.percent for share in self.shares)
        for share in self.shares:
            point -= share.percent
            if point < 0:
                return share.blueprint
        return None
