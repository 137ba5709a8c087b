"""Steps that wait for one another and otherwise run side by side, each shown with what it did and its seconds."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from setup.trouble import Trouble

_print = threading.Lock()


@dataclass(frozen=True)
class Step:
    """One thing that has to be so; `make_so` gives True when it had to do something."""

    name: str
    make_so: Callable[[], bool]
    after: tuple[str, ...] = ()


def say(line: str) -> None:
    """One whole line, whoever else is printing."""
    with _print:
        print(line, flush=True)


def run(steps: Sequence[Step]) -> bool:
    """Do the steps; False when one failed, after the ones under way have ended and the trouble was told."""
    known = {step.name for step in steps}
    waiting, done, failed = list(steps), set[str](), list[tuple[str, Exception]]()
    with ThreadPoolExecutor(max_workers=len(steps) or 1) as pool:
        at_work: dict[Future[None], str] = {}
        while waiting or at_work:
            ready = [step for step in waiting if not failed and done >= set(step.after) & known]
            waiting = [] if failed else [step for step in waiting if step not in ready]
            at_work.update({pool.submit(_timed, step): step.name for step in ready})
            if not at_work:
                break
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                name = at_work.pop(future)
                error = future.exception()
                if isinstance(error, Exception):
                    failed.append((name, error))
                elif error is not None:
                    raise error
                else:
                    done.add(name)
    for name, error in failed:
        for line in told(name, error):
            say(line)
    return not failed


def told(step: str, error: Exception) -> list[str]:
    """A failure in a few lines, whatever it was."""
    if isinstance(error, Trouble):
        return error.lines(step)
    return Trouble(f"{type(error).__name__}: {error}").lines(step)


def _timed(step: Step) -> None:
    began = time.monotonic()
    did = step.make_so()
    say(f"  {step.name:<18} {'did' if did else 'had':<4} {time.monotonic() - began:6.1f} s")
