"""Who serves: split, revisions, settings, as one read of the service saw them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from relais.model.place import ServiceName
from relais.model.values import Value


class Share(Value):
    """One revision's part of the traffic, in percent."""

    revision: str
    percent: int = Field(ge=0, le=100)


class Split(Value):
    """Who serves how much, by revision names; `latest` tells whether the service followed its latest revision."""

    shares: tuple[Share, ...] = ()
    mode: Literal["latest", "pinned"] = "pinned"

    def __str__(self) -> str:
        return ", ".join(f"{s.revision} {s.percent} %" for s in self.shares) or "nobody"

    @property
    def main(self) -> str:
        """The revision with the largest share; "" where nobody serves."""
        shares = self.by_name()
        return max(shares, key=lambda name: shares[name]) if shares else ""

    def percent(self, revision: str) -> int:
        return sum(s.percent for s in self.shares if s.revision == revision)

    def same(self, other: Split) -> bool:
        """Equal shares, whatever the order and the mode."""
        return self.by_name() == other.by_name()

    def by_name(self) -> dict[str, int]:
        shares: dict[str, int] = {}
        for share in self.shares:
            if share.percent:
                shares[share.revision] = shares.get(share.revision, 0) + share.percent
        return shares

    def giving(self, candidate: str, percent: int) -> Split:
        """The same revisions scaled down so that `candidate` has `percent`; whole numbers that sum to 100."""
        others = {name: part for name, part in self.by_name().items() if name != candidate}
        total = sum(others.values())
        if percent >= 100 or not total:
            return Split(shares=(Share(revision=candidate, percent=100),))
        exact = {name: part * (100 - percent) / total for name, part in others.items()}
        whole = {name: int(part) for name, part in exact.items()}
        short = 100 - percent - sum(whole.values())
        for name in sorted(exact, key=lambda n: (whole[n] - exact[n], n))[:short]:
            whole[name] += 1
        shares = tuple(Share(revision=name, percent=part) for name, part in whole.items() if part)
        return Split(shares=(*shares, Share(revision=candidate, percent=percent)) if percent else shares)


class Target(Value):
    """One entry of a service's `traffic`: a revision's short name, or LATEST."""

    revision: str
    percent: int = 0
    tag: str = ""


class Revision(Value):
    """A revision as Cloud Run lists it."""

    name: str
    created: datetime | None = None
    ready: bool = False
    message: str = ""
    image: str = ""
    digest: str = ""
    tag: str = ""  # the image's tag, where the registry still knows one
    percent: int = 0
    commit: str = ""
    release: str = ""


class Spec(Value):
    """What a revision runs with: enough to compare what serves with what will. Env by fingerprint, never by value."""

    image: str = ""
    env: dict[str, str] = {}  # name -> fingerprint of the value
    plain: dict[str, str] = {}  # name -> value, for the names that the release file declares plain
    secrets: dict[str, str] = {}  # name -> secret:version
    settings: dict[str, str] = {}  # memory, cpu, timeout, max_instances, ... in the API's own spelling


class Serving(Value):
    """A service as one read saw it; `etag` ties a later write to this very read."""

    service: ServiceName
    exists: bool = True
    etag: str = ""
    uri: str = ""
    settled: bool = True
    desired: tuple[Target, ...] = ()
    split: Split = Split()  # observed, LATEST resolved to a name
    tags: dict[str, str] = {}  # tag -> URL
    annotations: dict[str, str] = {}
    latest_created: str = ""
    latest_ready: str = ""
    public: bool = False  # known where `access` was asked for
    ingress: str = ""  # in the release file's words
    scaling: dict[str, int] = {}  # of the service, where it is set: min_instances, max_instances
    message: str = ""  # of the terminal condition, where it is not "ready"
    updated: datetime | None = None

    @property
    def asked(self) -> dict[str, int]:
        """The desired shares by revision name (LATEST under its own word)."""
        shares: dict[str, int] = {}
        for target in self.desired:
            if target.percent:
                shares[target.revision] = shares.get(target.revision, 0) + target.percent
        return shares


class Stable(Value):
    """Who serves and with which settings, and the settings that the release file makes of them."""

    serving: Serving
    main: Revision | None = None  # the revision with the largest share
    before: Spec | None = None
    after: Spec
    revisions: tuple[Revision, ...] = ()
    registry_uri: str

    @property
    def taken(self) -> tuple[str, ...]:
        """The revision names in use."""
        return tuple(revision.name for revision in self.revisions)

    def candidate_of(self, release: str, commit: str) -> str:
        """The revision that this release made of this commit before, when its run is retried; "" where there is none."""
        return next((r.name for r in self.revisions if (r.release, r.commit) == (release, commit)), "")
