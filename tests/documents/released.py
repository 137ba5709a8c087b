"""Records of releases as they end in life: promoted, rolled back, refused, failed, first, killed."""

from datetime import UTC, datetime, timedelta
from typing import Any

from relais.model import (
    Built,
    Candidate,
    Commit,
    Finding,
    Layer,
    Line,
    Move,
    Plan,
    Problem,
    Pushed,
    Record,
    Revision,
    ServiceName,
    Share,
    Source,
    Spec,
    Split,
    Text,
    Timing,
    Verdict,
    Wheel,
    Window,
)

BEGIN = datetime(2025, 10, 9, 12, 2, 11, tzinfo=UTC)
SERVICE = ServiceName(project="emergence-469005", region="europe-west1", name="emergence-app")
OLD, NEW = "emergence-app-phase3b", "emergence-app-p1-memory"
DIGEST = "sha256:4f1c2d9be0a75c3d8e6b1f20a94c7d35e8b6f1a2c3d4e5f60718293a4b5c6d7e"
OLD_DIGEST = "sha256:aa0c2d9be0a75c3d8e6b1f20a94c7d35e8b6f1a2c3d4e5f60718293a4b5c6d00"

RELEASE: dict[str, Any] = {
    "service": "emergence-app",
    "project": "emergence-469005",
    "region": "europe-west1",
    "repository": "app",
    "release": {
        "title": "Phase P1 - Enrichissement mémoire",
        "slug": "p1-memory",
        "by": "Codex (cloud)",
        "commit": "588c5dc",
        "next": ["Monitoring métriques P1 (24h)", "Validation extraction préférences en usage réel", "Préparer Phase P2"],
    },
    "canary": {"steps": [10], "bake": "5m", "deadline": "10m", "finish": "latest"},
    "documents": {
        "language": "fr",
        "timezone": "Europe/Paris",
        "report": "docs/deployments/{date}-deploy-{slug}.md",
        "index": "docs/deployments/README.md",
        "sync": {"path": "AGENT_SYNC.md", "section": "Codex (cloud)"},
        "journal": "docs/passation.md",
    },
    "escalate": {"contact": "FG (architecte)"},
}
CHANGES = (
    {"P1.1 Déportation asynchrone": ["`MemoryTaskQueue` avec 2 workers asyncio", "`analyze_session_async()` non-bloquante"]},
    {"title": "P1.2 Extension extraction", "items": ["`PreferenceExtractor` modulaire", "Pipeline hybride | filtrage lexical + LLM"]},
    "P1.3 Métriques Prometheus",
)


def at(minutes: float) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


def pinned(*shares: tuple[str, int]) -> Split:
    return Split(shares=tuple(Share(revision=name, percent=percent) for name, percent in shares))


def seen(name: str, detail: str = "", outcome: Any = "passed", **more: Any) -> Finding:
    return Finding(name=name, detail=detail, outcome=outcome, **more)


SOURCE = Source(
    root="/srv/emergence",
    branch="main",
    commit=Commit(sha="4bde612" + "0" * 33, subject="docs: sync Phase P1 enrichissement mémoire (AGENT_SYNC + roadmap)"),
    previous=Commit(sha="c0ffee1" + "0" * 33, subject="feat: phase 3b | `cache`"),
    since=(
        Commit(sha="4bde612" + "0" * 33, subject="docs: sync Phase P1 enrichissement mémoire (AGENT_SYNC + roadmap)"),
        Commit(sha="588c5dc" + "0" * 33, subject="feat(P1): enrichissement mémoire - déportation async"),
    ),
    findings=(
        seen("branch", "main", kind="git"),
        seen("clean", "no tracked file is changed", kind="git"),
    ),
)

PLAN = Plan(
    id="20251009-140211-3fa9c2",
    wheel=Wheel(owner="run-1"),
    started=BEGIN,
    by="Codex (cloud)",
    service=SERVICE,
    source=SOURCE,
    release=RELEASE,
    title="Phase P1 - Enrichissement mémoire",
    slug="p1-memory",
    changes=CHANGES,
    image="europe-west1-docker.pkg.dev/emergence-469005/app/emergence-app",
    tag="deploy-p1-20251009-140211",
    revision=NEW,
    traffic_tag="r-3fa9c2",
    stable=pinned((OLD, 100)),
    stable_spec=Spec(image="app@sha256:1"),
    uri="https://emergence-app-486095406755.europe-west1.run.app",
    lines=(
        Line(kind="changed", what="image", before="cockpit-phase3-20251009-093500", after="deploy-p1-20251009-140211"),
        Line(kind="added", what="env MEMORY_WORKERS"),
        Line(kind="kept", what="env", before="38 names"),
        Line(kind="lowered", what="memory", before="4Gi", after="2Gi", allow="lower memory"),
        Line(kind="note", what="traffic is pinned", before=f"{OLD}=100", after="a later plain deploy would serve nobody"),
    ),
    texts=(
        Text(path="AGENT_SYNC.md", part="Claude Code", excerpt="..."),
        Text(path="docs/passation.md", part="last 3 entries", excerpt="..."),
    ),
    findings=(
        seen("memory tests", "15 of 15 passed", kind="check", seconds=3.1),
        seen("ruff", "All checks passed", kind="check", reused=True),
        seen("mypy", "waived by FG until 2025-10-31: stubs of library X", "waived", kind="check"),
        seen("all tests", "skipped by FG", "skipped", kind="check", required=False),
        seen("secrets", "OPENAI_API_KEY:7 exists", kind="gate"),
    ),
    medians={"build": 610.0, "push": 300.0},
)

BUILT = Built(
    id="sha256:77", ref=f"{PLAN.image}:{PLAN.tag}", key="k1", size=1_912_345_678, platform="linux/amd64",
    layers=(Layer(size=183_000_000, created_by="RUN fetch the embedding model"),), commit=SOURCE.commit.sha, seconds=672.4,
    findings=(seen("image size", "1.9 GB, at most 14 GB"),),
)
PUSHED = Pushed(ref=BUILT.ref, digest=DIGEST, pinned=f"{PLAN.image}@{DIGEST}", size=734_000_000, seconds=312.0)
CANDIDATE = Candidate(
    revision=NEW, digest=DIGEST, tag="r-3fa9c2", uri="https://r-3fa9c2---emergence-app.a.run.app", seconds=192.0,
    log=("MemoryTaskQueue started with 2 workers", "Worker 0 started", "Worker 1 started", "Application startup complete"),
)
VERIFIED = (
    seen("GET /api/health", "200 OK", kind="http"),
    seen("GET /api/metrics", "8 metrics", kind="metrics"),
    seen("logs", "5 of 5 lines", kind="logs"),
)
VALIDATED = (
    seen("GET /api/health", "200 OK", kind="http"),
    seen('memory_preferences_extracted_total{type="preference"}', "0 -> 1", kind="counter"),
    seen("smoke", "no credentials", "skipped", kind="smoke", required=False),
)
PROOF = (seen("digest", "what serves is what was built", kind="proof"), seen("split", f"{NEW} 100 %", kind="proof"))
REVISIONS = (
    Revision(name=NEW, created=at(18), ready=True, digest=DIGEST, tag=PLAN.tag, percent=100),
    Revision(name=OLD, created=at(-270), ready=True, digest=OLD_DIGEST, tag="cockpit-phase3-20251009-093500"),
)
METRICS = {
    "P1 préférences": (
        'memory_preferences_extracted_total{type="preference"} 1.0\nmemory_preferences_confidence_bucket{le="0.6"} 0.0\n'
        "memory_preferences_confidence_count 1.0\nmemory_preferences_confidence_sum 0.83"
    ),
    "Cache (Phase 3)": "memory_analysis_cache_hits_total 0.0\nmemory_analysis_cache_size 0.0",
}
CANARY_MOVES = (
    Move(at=at(22), split=pinned((OLD, 90), (NEW, 10)), because="step 1 of the ladder"),
    Move(at=at(32), split=pinned((NEW, 100)), because="nothing is worse"),
)
WINDOWS = (
    Window(begin=at(22), end=at(27), percent=10, candidate_requests=61, stable_requests=540, stable_errors=2, left_out=53),
    Window(begin=at(27), end=at(32), percent=10, candidate_requests=58, stable_requests=533, stable_errors=1, left_out=49),
)
TIMINGS = (
    Timing(stage="preflight", seconds=41.0, median=44.0),
    Timing(stage="build", seconds=672.4, median=240.0),
    Timing(stage="push", seconds=312.0),
)

ASKED = Record(id=PLAN.id, app="/srv/emergence", started=BEGIN, run="0199", run_url="http://127.0.0.1:4200/runs/flow-run/0199")
DEPLOYED = ASKED.plus(plan=PLAN, build=BUILT, push=PUSHED, deploy=CANDIDATE, verify=VERIFIED)

PROMOTED = DEPLOYED.plus(
    state="Promoted", summary=f"{NEW} serves 100 %", ended=at(39.2), moves=CANARY_MOVES, windows=WINDOWS,
    verdict=Verdict(word="promoted", because="nothing is worse after 119 requests", windows=WINDOWS, moves=CANARY_MOVES),
    proof=PROOF, validate_=VALIDATED, metrics=METRICS, revisions=REVISIONS, timings=TIMINGS,
)

AT_ONCE = PROMOTED.plus(
    plan=PLAN.model_copy(update={"changes": (), "release": {**RELEASE, "canary": None}, "texts": ()}),
    moves=(Move(at=at(21), split=pinned((NEW, 100)), because="no canary: 100 % at once"),),
    windows=(), verdict=None, timings=(),
)

BACK = Move(at=at(27.5), split=pinned((OLD, 100)), because="worse: 31 of 58 requests failed, stable 1 of 533")
ROLLED_BACK = DEPLOYED.plus(
    state="RolledBack", summary=f"{NEW} was worse; {OLD} serves 100 % again", ended=at(29), moves=(CANARY_MOVES[0], BACK),
    windows=(WINDOWS[0].model_copy(update={"candidate_errors": 31}),),
    verdict=Verdict(word="rolled back", because="worse: 31 of 58 requests failed, stable 1 of 533"),
    rollback=(seen("split", f"{OLD} 100 %", kind="proof"), seen("GET /api/health", "200 OK", kind="http")),
    proof=(seen("digest", "what serves is what served before", kind="proof"),),
    revisions=(REVISIONS[0].model_copy(update={"percent": 0}), REVISIONS[1].model_copy(update={"percent": 100})),
)

BUILD_FAILED = ASKED.plus(
    plan=PLAN, state="Failed", summary="the build failed", ended=at(4),
    problem=Problem(
        kind="StepFailed", what="the build failed: pip could not find `prometheus_client` <9.9>", where="Dockerfile:12",
        remedy="look at requirements.txt; free the builder's cache with docker builder prune",
    ),
)

REFUSED = ASKED.plus(
    state="Refused", summary="memory tests failed", ended=at(1),
    plan=PLAN.model_copy(
        update={"findings": (seen("memory tests", "14 of 15 passed", "failed", kind="check", evidence="FAILED test_x\n```\n1 failed"),)}
    ),
    problem=Problem(kind="Refused", what="memory tests: 14 of 15 passed", remedy="mend the tests, or waive the check by name"),
)

FIRST = DEPLOYED.plus(
    plan=PLAN.model_copy(
        update={
            "first": True, "stable": Split(), "stable_spec": None, "uri": "", "medians": {},
            "source": SOURCE.model_copy(update={"previous": None, "since": ()}),
            "lines": (Line(kind="added", what="service emergence-app"), Line(kind="added", what="image", after=PLAN.tag)),
        }
    ),
    state="Promoted", summary=f"{NEW} serves 100 %", ended=at(24),
    proof=PROOF, validate_=VALIDATED[:1], metrics={}, revisions=REVISIONS[:1],
)

GUARDED = DEPLOYED.plus(
    state="RolledBack", summary="the logs cannot be read", ended=at(26), moves=CANARY_MOVES[:1],
    problem=Problem(kind="Unavailable", what="the logs cannot be read", where="emergence-app", remedy="look at the quota of Cloud Logging"),
)
HELD = DEPLOYED.plus(
    state="Held", summary="nothing is worse and nothing is proven", ended=at(33), moves=CANARY_MOVES[:1], windows=WINDOWS,
    verdict=Verdict(word="held", because="nothing is worse and nothing is proven"),
)

KILLED = DEPLOYED.plus(state="Interrupted", summary="the run was ended from outside", moves=CANARY_MOVES[:1])
BLIND = ASKED.plus(
    state="Refused", summary="release.yaml:3: servce is not a key",
    problem=Problem(kind="BadInput", what="servce is not a key", where="release.yaml:3"),
)

RECORDS: dict[str, Record] = {
    "promoted": PROMOTED, "at-once": AT_ONCE, "rolled-back": ROLLED_BACK, "build-failed": BUILD_FAILED, "refused": REFUSED, "first": FIRST,
    "guarded": GUARDED, "held": HELD, "killed": KILLED, "without-plan": BLIND,
}
BOXES = (
    seen("Docker image built and pushed", DIGEST[:19]),
    seen("Cloud Run revision deployed", NEW),
    seen("Smoke tests passed", "no credentials", "skipped", required=False),
    seen("Report written", "not yet", "not proven"),
)
