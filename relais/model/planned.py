"""The plan, line by line, and the wheel that it takes."""

from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from relais.config import ReleaseFile
from relais.model.place import ServiceName, Source, Text
from relais.model.serving import Spec, Split
from relais.model.values import Finding, Value

Kind = Literal["added", "changed", "removed", "lowered", "kept", "note"]


class Line(Value):
    """One line of the plan: what of the service, how it changes, and whether that blocks."""

    kind: Kind
    what: str
    before: str = ""
    after: str = ""
    allow: str = ""  # the word in deploy.allow that lets it through; "" needs none
    blocks: bool = False

    def __str__(self) -> str:
        change = f"{self.before} -> {self.after}" if self.before and self.after else self.before or self.after
        return f"{self.kind} {self.what}" + (f": {change}" if change else "")


class Wheel(Value):
    """Who may write to the service: the owner's name and the epoch, which every take-over raises."""

    owner: str
    epoch: int = 1


class Plan(Value):
    """What this release would do, before it does anything; everything later stages need to know, and no secret."""

    id: str  # 20261124-213112-3fa9c2, kept over retries
    wheel: Wheel
    started: datetime
    by: str
    service: ServiceName
    source: Source
    release: dict[str, Any]  # the release file with the run's changes, as data: `ReleaseFile.model_validate(plan.release)`
    title: str
    slug: str
    changes: tuple[Any, ...] = ()
    image: str  # registry_uri/service, without tag
    tag: str  # of the image
    revision: str  # the candidate's name
    traffic_tag: str  # the candidate's tag on the service
    first: bool = False  # the service does not exist yet: no stable, no canary
    stable: Split = Split()
    stable_spec: Spec | None = None
    uri: str = ""
    etag: str = ""
    lines: tuple[Line, ...] = ()
    texts: tuple[Text, ...] = ()
    findings: tuple[Finding, ...] = ()  # reading, Git, checks, gates
    medians: dict[str, float] = {}  # stage -> seconds in earlier releases

    @property
    def file(self) -> ReleaseFile:
        """The release file with the run's changes, as it was when the plan was made."""
        return ReleaseFile.model_validate(self.release)

    @property
    def facts(self) -> dict[str, str]:
        """What the release file's {placeholders} stand for once the plan is drawn; one clock for all of them."""
        started = self.started.astimezone(ZoneInfo(self.file.documents.timezone))
        return {
            "timestamp": f"{started:%Y%m%d-%H%M%S}", "date": f"{started:%Y-%m-%d}", "slug": self.slug, "service": self.service.name,
            "commit": self.source.commit.sha, "short_commit": self.source.commit.short, "tag": self.tag, "revision": self.revision,
            "project": self.service.project, "region": self.service.region, "image": f"{self.image}:{self.tag}", "url": self.uri,
        }  # fmt: skip

    @property
    def blockers(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.blocks)
