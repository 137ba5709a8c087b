"""The team's documents: rendered from the record, saved in the repository, committed on their own; artifacts for the Prefect UI."""

from collections.abc import Callable
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from relais import contract, documents
from relais.clients.files import write_whole
from relais.clients.git import Repository
from relais.config import BUILD_TAG, fill
from relais.errors import RelaisError
from relais.model import Finding, Plan, Record
from tasks.effects import effect, say, within

PATIENCE = 5.0  # seconds that an artifact may take: Prefect's server being gone never holds up a release


@effect("write the documents")
def write(record: Record) -> tuple[Finding, ...]:
    """Report and index first, then the pages that people keep; each is a box of its own, and none ever moves traffic."""
    if record.plan is None:
        return ()
    plan, wanted, root = record.plan, record.plan.file.documents, Path(record.plan.source.root)
    if not root.is_dir():
        return (Finding(name="documents", kind="document", outcome="failed", detail=f"{root} is gone", required=False),)
    paths = documents.paths(record, lambda path: (root / path).exists() and record.id.encode() not in (root / path).read_bytes())
    language, report = wanted.language, paths.get("report", "")
    findings: list[Finding] = []
    if wanted.index:
        findings.append(_saved(root, "index", wanted.index, lambda old: documents.index(old, record, language, report)))
    if wanted.sync:
        page, section = wanted.sync.path, wanted.sync.section
        findings.append(_saved(root, "synchronisation page", page, lambda old: documents.sync(old, record, language, section, report)))
    if wanted.journal:
        findings.append(_saved(root, "journal", wanted.journal, lambda old: documents.journal(old, record, language, report)))
    if report:  # last, so that its checklist knows the other pages; its own box is true once it is there
        written = Finding(name="report", kind="document", outcome="passed", detail=report, required=False)
        boxes = contract.checklist(record.plus(documents=(*findings, written)))
        findings.insert(0, _saved(root, "report", report, lambda _: documents.report(record, language, boxes)))
    if findings:
        digest = record.push.digest if record.push else "unknown"
        findings += _committed(plan, root, [f.evidence for f in findings if f.outcome == "passed"], digest)
    for finding in findings:
        say(str(finding))
    return tuple(findings)


def _saved(root: Path, name: str, path: str, edit: Callable[[bytes], bytes]) -> Finding:
    place = root / path
    try:
        old = place.read_bytes() if place.exists() else b""
        write_whole(place, edit(old))
    except Exception as problem:  # whatever it is: a document that fails is a failed box, and production is not its business
        detail = f"{path}: {type(problem).__name__}: {problem}"
        return Finding(name=name, kind="document", outcome="failed", detail=detail, required=False)
    return Finding(name=name, kind="document", outcome="passed", detail=path, evidence=path, required=False)


def _committed(plan: Plan, root: Path, paths: list[str], digest: str) -> list[Finding]:
    """The documents and the tag file in a commit of their own, pushed where the next release demands pushed commits."""
    wanted, rules = plan.file.documents, plan.file.preflight.git
    if wanted.commit is None:
        return [Finding(name="documents committed", kind="document", outcome="skipped", detail="documents.commit is false", required=False)]
    found: list[Finding] = []
    try:
        repo = Repository.open(root)
        extra = [BUILD_TAG] if (root / BUILD_TAG).exists() and not repo.ignored_in([BUILD_TAG]) else []
        commit = repo.commit(
            [*paths, *extra],
            fill(wanted.commit.message, {**plan.facts, "digest": digest, "url": plan.uri or "unknown"}),
            author=wanted.commit.author or "",
            branch=rules.branch,
        )
        found.append(Finding(name="documents committed", kind="document", outcome="passed", detail=str(commit), required=False))
        if wanted.push is True or (wanted.push == "auto" and rules.pushed and repo.remotes()):
            repo.push(rules.branch)
            found.append(Finding(name="documents pushed", kind="document", outcome="passed", detail=rules.branch, required=False))
    except RelaisError as problem:
        name = "documents pushed" if found else "documents committed"
        found.append(Finding(name=name, kind="document", outcome="failed", detail=" ".join(str(problem).split()), required=False))
    return found


# -- artifacts: what the Prefect UI shows -----------------------------------------------------------------------------------


def show_plan(plan: Plan) -> None:
    """The plan, as a page of the run."""
    _page("plan", lambda: documents.plan_page(plan), f"What this release of {plan.service.name} would change")


def show_end(record: Record) -> None:
    """The checklist, the verdict and the report, as pages of the run, and links to the revision and its log."""
    if record.state == "Planned":  # the plan, which is shown already, is all there is
        return
    _page("checklist", lambda: documents.checklist_page(record, contract.checklist(record)), "The runbook's final checklist")
    if record.plan is None:
        return
    if record.state == "Refused" and record.build is None:  # otherwise the release has shown it already
        show_plan(record.plan)
    if record.verdict is not None:
        _page("verdict", lambda: documents.verdict_page(record), "What the rollout ended with")
    language = record.plan.file.documents.language
    _page("report", lambda: documents.report(record, language, contract.checklist(record)).decode(), "The deployment report")
    if record.deploy is not None:
        _link("revision", record.deploy.uri, f"Revision {record.deploy.revision}")
        _link("log", record.deploy.log_uri, f"Log of {record.deploy.revision}")


def _page(key: str, text: Callable[[], str], description: str) -> None:
    within(PATIENCE, lambda: create_markdown_artifact(text(), key=key, description=description))


def _link(key: str, url: str, description: str) -> None:
    if url:
        within(PATIENCE, lambda: create_link_artifact(url, link_text=description, key=key, description=description))
