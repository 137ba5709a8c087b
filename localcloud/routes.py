"""Who answers a service's requests: plain values that the data plane reads and the reconciler replaces as a whole."""

import random
from dataclasses import dataclass, field

from localcloud.blueprint import Blueprint


@dataclass(frozen=True)
class Share:
    """A revision and its percentage."""

    blueprint: Blueprint
    percent: int


@dataclass(frozen=True)
class Routes:
    """The shares and tags of one service, whether everybody may call it, and the labels that its log entries bear."""

    shares: tuple[Share, ...] = ()
    tags: dict[str, Blueprint] = field(default_factory=dict)
    public: bool = False

    def pick(self, tag: str) -> Blueprint | None:
        """The revision for one request: the tag's own, or one by the percentages; None if nobody serves."""
        if tag:
            return self.tags.get(tag)
        shares = [share for share in self.shares if share.percent > 0]
        if not shares:
            return None
        return random.choices(shares, weights=[share.percent for share in shares])[0].blueprint
