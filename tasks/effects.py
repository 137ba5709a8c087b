"""What every task shares: `@effect`, shields against signals, and log lines without tracebacks for our own errors."""

import contextlib
import contextvars
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

from prefect import Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError

from relais.errors import RelaisError, Unavailable

P = ParamSpec("P")
R = TypeVar("R")

LOGGER = logging.getLogger("relais")


def only_outages(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Tasks retry Unavailable, and nothing else."""
    return isinstance(state.result(raise_on_failure=False), Unavailable)


class Effect(Task[P, R]):
    """A task whose arrows in the run graph are true.

    Prefect draws one wherever it meets a part of a result again, by identity, and an empty text is everywhere: here only values count.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        finally:
            known = context.run_results if (context := FlowRunContext.get()) else {}
            for part in [part for part, (_, _, value) in known.items() if value is None]:
                del known[part]


def effect(name: str, *, retries: int = 0, delays: Sequence[float] = (1.0, 3.0)) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task named for people (`name` may use its parameters), retried on outages only, and never answered from a cache."""

    def wrap(fn: Callable[P, R]) -> Task[P, R]:
        return Effect(
            fn,
            name=fn.__name__.replace("_", " "),
            task_run_name=name,
            retries=retries,
            retry_delay_seconds=list(delays[:retries]) or 0,
            retry_condition_fn=only_outages,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    return wrap


def say(message: str, *, level: int = logging.INFO) -> None:
    """One sentence in the run's log, which is our user interface; outside a run, on the package's own logger."""
    try:
        get_run_logger().log(level, message)
    except MissingContextError:
        LOGGER.log(level, message)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """While production is put back no signal interrupts; only the main thread can, and needs to, shield itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def hang_up_like_terminate() -> None:
    """A closed terminal ends the run the way a cancel does, so that the guard gets to work; under nohup it ends nothing."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def within(seconds: float, fn: Callable[[], R]) -> R | None:
    """The result of `fn`, or None when it fails or takes longer: for what may never hold up a release, such as an artifact."""
    box: list[R] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box.append(context.run(fn))
        except Exception as error:
            LOGGER.warning("not published: %s", error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return box[0] if box else None


class OneParagraph(logging.Filter):
    """Our own errors say what happened, where and what to do; a traceback beneath them helps nobody, nor does a line at each task's end."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage() == "Finished in state Completed()":
            return False
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, RelaisError):
            record.exc_info = record.exc_text = None
            return not record.getMessage().startswith("Engine execution exited")  # the state has said it already
        return True


def quiet_our_errors() -> None:
    """Put the filter on Prefect's run loggers, once."""
    for name in ("prefect.task_runs", "prefect.flow_runs", "prefect.task_engine", "prefect.flow_engine"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, OneParagraph) for known in logger.filters):
            logger.addFilter(OneParagraph())


quiet_our_errors()
