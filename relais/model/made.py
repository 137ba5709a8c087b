"""What a release makes and sees on its way: image, candidate, evidence, verdict, moves."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from relais.model.serving import Split
from relais.model.values import Finding, Value


class Layer(Value):
    size: int  # bytes
    created_by: str


class Built(Value):
    """An image on the Engine."""

    id: str
    ref: str  # name:tag
    key: str  # of the content that the builder got
    size: int  # bytes, on the Engine
    platform: str
    layers: tuple[Layer, ...] = ()  # largest first
    reused: bool = False
    commit: str = ""  # that it was built from
    builder: str = ""
    log: str = ""  # the last lines
    seconds: float = 0.0
    findings: tuple[Finding, ...] = ()


class Pushed(Value):
    """An image in the registry, known by digest."""

    ref: str  # name:tag
    digest: str  # sha256:... as the registry says it
    pinned: str  # name@digest: what is deployed
    size: int = 0  # bytes in the registry (compressed)
    seconds: float = 0.0
    findings: tuple[Finding, ...] = ()


class Candidate(Value):
    """The new revision, Ready, at 0 %."""

    revision: str
    digest: str
    tag: str = ""
    uri: str = ""  # of the tag
    seconds: float = 0.0
    log: tuple[str, ...] = ()  # its start-up lines
    log_uri: str = ""  # where its whole log is shown
    reused: bool = False


class Window(Value):
    """A closed span of evidence: requests and errors (5xx) of candidate and stable between two instants."""

    begin: datetime
    end: datetime
    percent: int  # the candidate's share
    candidate_requests: int = 0
    candidate_errors: int = 0
    stable_requests: int = 0
    stable_errors: int = 0
    left_out: int = 0  # tagged-URL and noise traffic

    def __add__(self, other: Window) -> Window:
        return Window(
            begin=min(self.begin, other.begin),
            end=max(self.end, other.end),
            percent=other.percent,
            candidate_requests=self.candidate_requests + other.candidate_requests,
            candidate_errors=self.candidate_errors + other.candidate_errors,
            stable_requests=self.stable_requests + other.stable_requests,
            stable_errors=self.stable_errors + other.stable_errors,
            left_out=self.left_out + other.left_out,
        )


Word = Literal["worse", "not worse", "inconclusive", "blind"]


class Judgement(Value):
    """What the evidence so far says, in a word and a sentence."""

    word: Word
    because: str = ""


VerdictWord = Literal["promoted", "rolled back", "held"]


class Move(Value):
    """A change of the split that was written, and when."""

    at: datetime
    split: Split
    because: str
    accepted_seconds: float = 0.0


class Verdict(Value):
    """What a rollout ends with."""

    word: VerdictWord
    because: str
    windows: tuple[Window, ...] = ()
    moves: tuple[Move, ...] = ()
