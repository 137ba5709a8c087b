"""The runbook's final checklist, read from the record alone: what a release did, what it left out and why, what nobody saw."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from relais.config import HttpCheck, ReleaseFile
from relais.contract.texts import one_line
from relais.model import Finding, Outcome, Record

_WORST: Final[tuple[Outcome, ...]] = ("failed", "not proven", "waived", "skipped", "passed")
_PLACE: Final = {True: "in production", False: "at 0 %"}


def checklist(record: Record) -> tuple[Finding, ...]:
    """The boxes in the runbook's order; they decide nothing, so none of them blocks."""
    file = record.plan.file if record.plan else None
    boxes = (
        _image(record, file),
        _deployed(record),
        _health(record, file),
        _metrics(record, file),
        _logs(record, file),
        _traffic(record),
        *_documents(record, file),
        _smoke(record, file),
    )
    return tuple(box.model_copy(update={"kind": "box", "required": False}) for box in boxes)


def _image(record: Record, file: ReleaseFile | None) -> Finding:
    name, made = "Docker image built and pushed", record.build
    if record.push is None:
        return _absent(record, name, ("build", "push"))
    findings = (*(made.findings if made else ()), *record.push.findings)
    how = "used again, " if made is not None and made.reused else ""
    if file is not None and file.build is None:
        how = "released by digest, not built, "
    return _summed(name, findings, f"{how}{record.push.digest}")


def _deployed(record: Record) -> Finding:
    name = "Cloud Run revision deployed"
    if record.deploy is None:
        return _absent(record, name, ("deploy",))
    return Finding(name=name, outcome="passed", detail=record.deploy.revision)


def _health(record: Record, file: ReleaseFile | None) -> Finding:
    name, checks = "Health check answers", _checks(file)
    plain = [check for check in checks if not check.metrics]
    health = next((check for check in plain if "health" in check.path), plain[0] if plain else None)
    if file is not None and health is None:
        return Finding(name=name, outcome="skipped", detail="the release file asks nothing")
    found, place = _latest(record, lambda f: health is not None and f.kind == "http" and f.name == health.name)
    if not found:
        return _absent(record, name, ("verify",))
    return Finding(name=name, outcome=found[0].outcome, detail=f"{found[0].name}: {found[0].detail} {place}")


def _metrics(record: Record, file: ReleaseFile | None) -> Finding:
    name, checks = "Metrics published", [check for check in _checks(file) if check.metrics]
    if file is not None and not checks:
        return Finding(name=name, outcome="skipped", detail="the release file declares none")
    groups = {f"metrics: {group.group}": len(group.names) for check in checks for group in check.metrics}
    names = {check.name for check in checks}
    found, place = _latest(record, lambda f: f.kind == "metrics" or (f.kind == "http" and f.name in names and f.blocks))
    if not found:
        return _absent(record, name, ("verify",))
    red = [f for f in found if f.outcome != "passed"]
    there = sum(groups.get(f.name, 0) for f in found if f.outcome == "passed")
    detail = "; ".join(f"{f.name}: {f.detail}" for f in red) if red else f"{there} of {sum(groups.values())} {place}"
    return Finding(name=name, outcome=_worst(found), detail=detail)


def _logs(record: Record, file: ReleaseFile | None) -> Finding:
    name = "Start-up log as expected"
    if file is not None and not file.verify.logs.expect and not file.verify.logs.forbid:
        return Finding(name=name, outcome="skipped", detail="the release file expects nothing of it")
    found = [f for f in record.verify or () if f.kind == "logs"]
    if not found:
        return _absent(record, name, ("verify",))
    red = [f for f in found if f.outcome != "passed"]
    expected = len(file.verify.logs.expect) if file else 0
    detail = "; ".join(f"{f.name.removeprefix('log: ')}: {f.detail}" for f in red)
    return Finding(name=name, outcome=_worst(found), detail=detail or f"{expected} expected lines, nothing forbidden")


def _traffic(record: Record) -> Finding:
    name, verdict = "Traffic routed to the new revision", record.verdict
    if record.state == "RolledBack" or record.rollback is not None or (verdict and verdict.word == "rolled back"):
        because = verdict.because if verdict and verdict.word == "rolled back" else record.summary
        return Finding(name=name, outcome="failed", detail=f"rolled back: {one_line(because)}")
    if verdict and verdict.word == "held":
        return Finding(name=name, outcome="not proven", detail=f"held: {one_line(verdict.because)}")
    if record.proof is None and record.moves:
        last = record.moves[-1].split
        gone = record.plan is not None and not last.percent(record.plan.revision)
        return Finding(name=name, outcome="failed" if gone else "not proven", detail=f"{last} as written; nobody looked at what serves")
    if record.proof is None:
        return _absent(record, name, ("canary", "promote", "proof"))
    return _summed(name, record.proof, "; ".join(f.detail for f in record.proof if f.name == "split that serves"))


def _documents(record: Record, file: ReleaseFile | None) -> Iterator[Finding]:
    wanted = file.documents if file else None
    for name, key, there in (
        ("Report written", "report", wanted is not None and bool(wanted.report)),
        ("Index updated", "index", wanted is not None and bool(wanted.index)),
        ("Synchronisation page updated", "synchronisation page", wanted is not None and wanted.sync is not None),
        ("Journal updated", "journal", wanted is not None and bool(wanted.journal)),
    ):
        found = next((f for f in record.documents or () if f.name == key), None)
        if found is not None:
            yield Finding(name=name, outcome=found.outcome, detail=found.detail)
        elif file is not None and not there:
            yield Finding(name=name, outcome="skipped", detail="the release file names none")
        elif file is not None and record.deploy is not None and record.documents is None:
            yield Finding(name=name, outcome="not proven", detail="not written yet")
        else:
            yield _absent(record, name, ("documents",))


def _smoke(record: Record, file: ReleaseFile | None) -> Finding:
    name = "Smoke tests passed"
    if file is not None and not file.validation.smoke:
        return Finding(name=name, outcome="skipped", detail="the release file has no smoke command")
    found = [f for f in record.validate_ or () if f.kind == "smoke"]
    if not found:
        return _absent(record, name, ("validate",))
    return Finding(name=name, outcome=_worst(found), detail="; ".join(f"{f.name}: {f.detail}" if f.detail else f.name for f in found))


# -- what all boxes share ---------------------------------------------------------------------------------------------------


def _absent(record: Record, name: str, stages: Sequence[str]) -> Finding:
    """A box whose stage left nothing: it failed, was not reached, was not asked for, or nobody knows."""
    tried = any(timing.stage in stages for timing in record.timings)
    if record.problem is not None:
        why = one_line(record.problem.what)
        return Finding(name=name, outcome="failed" if tried else "skipped", detail=why if tried else f"not reached: {why}")
    if record.state not in ("", "Interrupted") and not tried:
        return Finding(name=name, outcome="skipped", detail=one_line(record.summary) or f"the release ended before: {record.state}")
    return Finding(name=name, outcome="not proven", detail="nothing is recorded")


def _checks(file: ReleaseFile | None) -> tuple[HttpCheck, ...]:
    """The HTTP checks of the contract, those of production included."""
    if file is None:
        return ()
    return (*file.verify.http, *(file.validation.http or ()))


def _latest(record: Record, wanted: Callable[[Finding], bool]) -> tuple[list[Finding], str]:
    """The findings of production, otherwise those of the candidate at 0 %, and where they were made."""
    for findings, production in ((record.validate_, True), (record.verify, False)):
        if found := [f for f in findings or () if wanted(f)]:
            return found, _PLACE[production]
    return [], ""


def _worst(findings: Iterable[Finding]) -> Outcome:
    return min((f.outcome for f in findings), key=_WORST.index, default="passed")


def _summed(name: str, findings: Iterable[Finding], detail: str) -> Finding:
    """A box over several findings: passed unless one that is required is not."""
    red = [f for f in findings if f.blocks]
    if not red:
        return Finding(name=name, outcome="passed", detail=detail)
    return Finding(name=name, outcome=_worst(red), detail="; ".join(f"{f.name}: {f.detail}" for f in red))
