"""The logbook of one release: times every stage, and keeps the record as a file and as a Prefect artifact after each."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL
from pydantic import ValidationError

from relais.clients.files import write_whole
from relais.config import home
from relais.errors import BadInput, Refused, RelaisError
from relais.model import Move, Problem, Record, Timing, medians
from tasks.effects import say, within

P = ParamSpec("P")
R = TypeVar("R")
Stage = Literal["plan", "build", "push", "deploy", "verify", "canary", "promote", "proof", "validate", "revisions", "rollback", "documents"]
_FINDINGS = {"verify", "proof", "validate"}  # stages whose error carries the findings behind it
_FIELDS = {"build", "push", "deploy", "verify", "proof", "validate", "revisions", "rollback", "documents", "plan"}

_open: ContextVar["Logbook | None"] = ContextVar("logbook", default=None)


class Logbook:
    """Holds the latest record of a release; `did` runs a stage, `saw` adds to the record, and both save it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.well = True  # whether the state that it ended with is one to be glad of
        self.over = False  # whether this run's last word has been said
        self._ours = True  # whether the record's file is this run's to write
        self._medians: dict[str, float] = {}
        self._page: UUID | None = None  # the record's artifact, once it is there

    @classmethod
    def open(cls, app: str, ref: str) -> "Logbook":
        """The logbook of the release that this run is part of; else a new one, named by the run's own start and id.

        A retry of the run has the same name, and so finds what it made before.
        """
        if (known := _open.get()) is not None:
            return known
        started = flow_run.get_scheduled_start_time() or datetime.now(UTC)
        run = str(flow_run.get_id() or "")
        name = f"{started.astimezone(UTC):%Y%m%d-%H%M%S}-{run.replace('-', '')[:6] or os.urandom(3).hex()}"
        url = f"{PREFECT_UI_URL.value()}/runs/flow-run/{run}" if run and PREFECT_UI_URL.value() else ""
        return cls(Record(id=name, app=app, ref=ref, started=started.astimezone(UTC), run=run, run_url=url))

    @classmethod
    def find(cls, release: str) -> "Logbook":
        """The logbook of an earlier release, from its file."""
        path = _path(release)
        try:
            return cls(Record.model_validate_json(path.read_bytes()))
        except FileNotFoundError:
            raise BadInput(
                f"there is no record of release {release}",
                where=str(path),
                remedy="the records lie on the machine that released: run it there, or share RELAIS_HOME between the workers",
            ) from None
        except ValidationError as error:
            raise BadInput(f"the record of release {release} cannot be read ({error.error_count()} problems)", where=str(path)) from None

    def did(self, stage: Stage, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one stage of the release, time it against earlier releases, and keep what it saw."""
        begun = datetime.now(UTC)
        try:
            with self._overdue(stage):
                seen = step(*args, **kwargs)
        except RelaisError as error:
            if error.evidence and stage in _FINDINGS:
                self.saw(**{stage: error.evidence})
            raise
        finally:
            self._timed(stage, (datetime.now(UTC) - begun).total_seconds())
        self.saw(**({stage: seen} if stage in _FIELDS else {}))
        return seen

    @classmethod
    def of(cls, release: str) -> "Logbook | None":
        """The logbook of an earlier release, where there is one on this machine."""
        try:
            return cls.find(release)
        except BadInput as missing:
            say(f"no documents will be written: {missing.what}")
            return None

    @classmethod
    def current(cls) -> "Logbook | None":
        """The logbook of the release that this run is part of."""
        return _open.get()

    def moved(self, move: Move) -> None:
        """Traffic was moved: kept at once, for whoever has to go on from here."""
        self.saw(moves=(*self.record.moves, move))

    @property
    def is_back(self) -> bool:
        """Whether the last move gave the stable revisions their traffic back."""
        plan, moves = self.record.plan, self.record.moves
        return plan is not None and bool(moves) and moves[-1].split.same(plan.stable)

    def saw(self, **seen: Any) -> None:
        """Add to the record, and keep it."""
        fields = {{"validate": "validate_"}.get(name, name): value for name, value in seen.items()}
        self.record = self.record.plus(**fields)
        if self.record.plan and not self._medians:
            self._medians = self.record.plan.medians
        self.save()

    @contextmanager
    def opened(self) -> Iterator["Logbook"]:
        """While this lasts, subflows write into this logbook."""
        token = _open.set(self)
        try:
            yield self
        finally:
            _open.reset(token)

    def ends(self, state: str, summary: str, problem: BaseException | None = None, *, well: bool = True) -> None:
        """The last word of this run; `well` makes it a green one. What was decided stays, whatever ends the run after it."""
        if self.over:
            say(f"{state}, and too late to change anything: {summary}", level=logging.WARNING)
            return
        self.over = True
        self.well = well and problem is None
        seen: dict[str, Any] = {"state": state, "summary": summary, "ended": datetime.now(UTC)}
        if problem is not None:
            seen["problem"] = Problem.of(problem)
        self.saw(**seen)

    def hand_over(self) -> None:
        """Another run goes on with this release: the record's file is its own from here on."""
        self._ours = False

    def save(self) -> None:
        """The record as a file, whole or not at all, and as an artifact of the run.

        A retried run that gets no plan leaves the file of the attempt before it: what that one holds can still be promoted.
        """
        text, path = self.record.model_dump_json(indent=1), _path(self.record.id)
        try:
            if self._ours and (self.record.plan is not None or not path.exists()):
                write_whole(path, text.encode())
        except OSError as problem:
            self._cannot_keep(problem)
        if flow_run.get_id():
            within(5, lambda: self._show(f"```json\n{text}\n```"))

    def _cannot_keep(self, problem: OSError) -> None:
        """Before anything is deployed it ends the release; later, production matters more than its record."""
        path, why = _path(self.record.id), problem.strerror or str(problem)
        remedy = "free some space there, or set RELAIS_HOME to another disk"
        if self.record.deploy is None and not self.record.state:
            raise Refused(f"the record of this release cannot be kept: {why}", where=str(path), remedy=remedy) from None
        say(f"the record is not kept: {path}: {why}: {remedy}", level=logging.WARNING)

    def _show(self, page: str) -> None:
        """One artifact, which changes: the record of one run is one card among its artifacts."""
        if self._page is None:
            made = create_markdown_artifact(page, key=f"record-{self.record.id}", description="What it did and saw, as data")
            self._page = cast(UUID, made)
        else:  # `update_artifact` would put the whole page into an event as well
            get_client(sync_client=True).request("PATCH", "/artifacts/{id}", json={"data": page}, path_params={"id": self._page})

    def _timed(self, stage: Stage, seconds: float) -> None:
        timing = Timing(stage=stage, seconds=round(seconds, 3), median=self._medians.get(stage))
        kept = tuple(t for t in self.record.timings if t.stage != stage)
        self.record = self.record.plus(timings=(*kept, timing))
        if timing.median is None:
            say(f"{stage}: {seconds:.1f} s")
        elif timing.overrun:
            say(f"{stage}: {seconds:.1f} s, longer than usual (median of earlier releases {timing.median:.1f} s)", level=logging.WARNING)
        else:
            say(f"{stage}: {seconds:.1f} s (median of earlier releases {timing.median:.1f} s)")

    @contextmanager
    def _overdue(self, stage: Stage) -> Iterator[None]:
        """Says so while a stage takes more than twice its median."""
        usual = self._medians.get(stage)
        if usual is None:
            yield
            return
        note = f"{stage} is still under way after {2 * usual + 5:.0f} s; the median of earlier releases is {usual:.1f} s"
        timer = threading.Timer(2 * usual + 5, lambda: logging.getLogger("relais").warning(note))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _path(release: str) -> Path:
    return home() / "records" / f"{release}.json"


def earlier(service: str, most: int = 20) -> tuple[Record, ...]:
    """The newest records of a service's releases on this machine; files that cannot be read are passed over."""
    found: list[Record] = []
    for path in sorted((home() / "records").glob("*.json"), reverse=True):
        try:
            record = Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if record.plan and record.plan.service.name == service:
            found.append(record)
        if len(found) == most:
            break
    return tuple(found)


def usual_times(service: str) -> dict[str, float]:
    """The median seconds of each stage in earlier releases of a service."""
    return medians(earlier(service))
