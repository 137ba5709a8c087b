"""How every run begins and ends: a logbook is opened, whatever happens becomes a state with a name, and the same things are told."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from relais.clients.git import Repository
from relais.config import load
from relais.errors import BadInput, Lost, Overtaken, Refused, RelaisError
from tasks import documents, traffic, validation
from tasks.effects import hang_up_like_terminate, say
from tasks.logbook import Logbook

SIDE_BY_SIDE = cast("TaskRunner[Any]", ThreadPoolTaskRunner(max_workers=4))


def named() -> str:
    """emergence-app@588c5dc, where the release file and the commit can be read at once; else what was asked."""
    app, ref = str(flow_run.parameters.get("app", "")), str(flow_run.parameters.get("ref", "HEAD"))
    try:
        root = Path(app) if Path(app).is_dir() else Path(app).parent
        return f"{load(root / 'release.yaml').service}@{Repository.open(root).resolve(ref).short}"
    except (RelaisError, OSError):
        return f"{Path(app).stem or app}@{ref}"


@contextmanager
def story(log: Logbook) -> Iterator[Logbook]:
    """Expected errors and signals end the story with a word and a sentence; anything else is a bug, and stays one."""
    hang_up_like_terminate()
    with log.opened():
        try:
            yield log
        except Overtaken as other:  # whoever drives now keeps the record and tells the end
            log.hand_over()
            log.ends("Interrupted", str(other), other)
        except Lost as foreign:  # a person, or another run, decides now: what they wrote stays written
            log.ends("Held", str(foreign), foreign)
        except RelaisError as problem:
            log.ends(word(log, problem), said(problem), problem)
        except Exception as bug:
            put_back(log)
            log.ends("Failed", f"{type(bug).__name__}: {said(bug)}", bug)
            raise
        except BaseException as signal:  # TerminationSignal, KeyboardInterrupt: the guard has done its work, or had none
            after = " ".join(getattr(signal, "__notes__", ())) or "traffic was not touched"
            log.ends("Interrupted", f"the run was ended from outside ({type(signal).__name__}); {after}", signal)


def word(log: Logbook, problem: RelaisError) -> str:
    """What an error makes of a run: Refused is for what came before anything outside had changed."""
    if isinstance(problem, Refused | BadInput) and log.record.deploy is None:
        return "Refused"
    return "RolledBack" if put_back(log) else "Failed"


def said(error: Exception) -> str:
    """What an error says, and what the guard noted on it: what became of traffic."""
    return "\n  ".join([str(error), *getattr(error, "__notes__", ())])


def put_back(log: Logbook) -> bool:
    """Whether the guard has put traffic back; then it is proven, and the lock is free. The watch does this where we cannot."""
    plan = log.record.plan
    if plan is None or not log.is_back:
        return False
    try:
        validation.serves(plan.service, plan.stable)
        traffic.release_lock(plan.service, plan.wheel)
    except RelaisError as problem:
        say(f"traffic was put back and is not proven yet, the watch goes on: {problem}", level=logging.WARNING)
    return True


def tell(log: Logbook) -> State[Any]:
    """The end of a run: documents and artifacts from the record, the last sentence in the log, and the state."""
    record = log.record
    if record.deploy is not None and record.state != "Interrupted":  # then there are seconds left, and the watch writes them
        log.did("documents", documents.write, record)
    documents.show_end(log.record)
    return state_of(log)


def state_of(log: Logbook) -> State[Any]:
    """The run's final state: green or red by its type, its word as the name, its sentence as the message."""
    record = log.record
    say(f"{record.state}: {record.summary}", level=logging.INFO if log.well else logging.ERROR)
    if log.well:
        return Completed(name=record.state, message=record.summary)
    problem = record.problem
    error = RelaisError(problem.what, where=problem.where, remedy=problem.remedy) if problem else RelaisError(record.summary)
    return Failed(name=record.state, message=record.summary, data=error)
