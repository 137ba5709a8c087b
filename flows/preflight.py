"""The read-only part of a release: would it work, and what would it change?"""

from typing import cast

from prefect import flow
from prefect.states import Completed, Failed

from flows.story import SIDE_BY_SIDE, named
from relais import plan as planning
from relais.config import Changes, who
from relais.errors import Locked, RelaisError
from relais.model import Plan
from tasks import checks, documents, reading, source
from tasks.effects import say
from tasks.logbook import Logbook, usual_times


@flow(name="preflight", flow_run_name=named, task_runner=SIDE_BY_SIDE)
def preflight(app: str, ref: str = "HEAD", changes: Changes = Changes()) -> Plan:  # noqa: B008
    """Read everything, run the checks and draw the plan of a release, without changing anything.

    Args:
        app: The service's repository: a directory that holds a release.yaml, or a Git URL, which is cloned.
        ref: The commit, branch or tag to release.
        changes: What changes from one release to the next, over what the release file says.
    """
    log = Logbook.open(app, ref)
    try:
        plan = look(log, app, ref, changes)
    except RelaisError as no:
        return cast(Plan, Failed(name="Refused", message=str(no), data=no))  # Prefect gives callers a returned state's data
    changed = sum(line.kind not in ("kept", "note") for line in plan.lines)
    summary = f"{plan.service.name}: {changed} change{'s' * (changed != 1)}, and nothing stands against them"
    say(summary)
    return cast(Plan, Completed(name="Planned", message=summary, data=plan))


def look(log: Logbook, app: str, ref: str, changes: Changes) -> Plan:
    """The plan, or everything that stands against it."""
    opened = source.open_app(app, ref, changes, log.record.id)
    found = source.sync(opened)
    if opened.url:
        checks.set_up(opened)
    texts_, gates_ = reading.read_documents.submit(opened), reading.gates.submit(opened)
    serving_ = reading.read_serving.submit(opened)
    checked = checks.run_all(opened, found)
    (texts, read), gates = texts_.result(), gates_.result()
    findings = (*found.findings, *read, *gates, *checked)
    try:
        stable = serving_.result()
    except Locked:
        raise
    except RelaisError as unread:  # the other things that stand against it are told with it
        raise planning.against(opened.service, findings, " ".join(str(unread).split())) or unread from None

    found = source.since(found, stable.main.commit if stable.main else "")
    plan = planning.draw(
        opened, found, stable, texts, findings, log.record, opened.file.release.by or who(),
        usual_times(opened.file.service),
    )  # fmt: skip
    documents.show_plan(plan)
    if no := planning.refusal(plan, stable.serving):
        log.saw(plan=plan)
        raise no
    return plan
