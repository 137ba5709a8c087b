"""What is read before anything changes: the team's documents, the machine and the registry, and who serves with which settings."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from relais.clients.docker import Engine
from relais.clients.registry import ArtifactRegistry
from relais.clients.run import CloudRun
from relais.clients.template import changed, spec_of, template_of
from relais.config import Reading, load_env_file
from relais.errors import BadInput, Refused, RelaisError
from relais.excerpt import excerpt
from relais.model import App, Finding, Stable, Text
from relais.rollout import require_free
from tasks.effects import effect, say

FREE_DISK = 2 * 10**9  # bytes that a build needs at least


@effect("read the documents")
def read_documents(app: App) -> tuple[tuple[Text, ...], tuple[Finding, ...]]:
    """The documents that whoever releases must have before their eyes, shown in the run; one that is missing is red."""
    texts, findings = [], []
    for wanted in app.file.preflight.read:
        name = f"read {wanted.path}"
        try:
            content = (Path(app.root) / wanted.path).read_text(encoding="utf-8", errors="replace")
            text = Text(path=wanted.path, part=_part(wanted), excerpt=excerpt(content, wanted.section, wanted.entries))
        except FileNotFoundError:
            findings.append(Finding(name=name, kind="reading", outcome="failed", detail="there is no such file"))
            continue
        except LookupError as missing:
            findings.append(Finding(name=name, kind="reading", outcome="failed", detail=str(missing)))
            continue
        except OSError as problem:
            findings.append(Finding(name=name, kind="reading", outcome="failed", detail=problem.strerror or str(problem)))
            continue
        texts.append(text)
        findings.append(Finding(name=name, kind="reading", outcome="passed", detail=text.part or "whole"))
        say(f"{wanted.path} {text.part}\n{text.excerpt}")
    return tuple(texts), tuple(findings)


def _part(wanted: Reading) -> str:
    section = f"section {wanted.section}" if wanted.section else ""
    entries = f"last {wanted.entries} entries" if wanted.entries else ""
    return ", ".join(filter(None, (section, entries)))


@effect("look at the machine")
def gates(app: App) -> tuple[Finding, ...]:
    """What could refuse the release later, asked now: the Dockerfile, the Engine, its disk, the registry's repository."""
    file, root = app.file, Path(app.root)
    asked: list[tuple[str, Callable[[], str]]] = []
    if file.build is not None:
        dockerfile, context = root / file.build.dockerfile, root / file.build.context
        asked += [("Dockerfile", lambda: _file(dockerfile)), ("build context", lambda: _directory(context)), ("Docker Engine", _engine)]
    if file.deploy.env_file:
        env_file = root / file.deploy.env_file
        asked.append(("env file", lambda: f"{len(load_env_file(env_file))} variables"))
    asked.append(("Artifact Registry", lambda: _registry(app)))
    return tuple(_gate(name, ask) for name, ask in asked)


def _gate(name: str, ask: Callable[[], str]) -> Finding:
    try:
        finding = Finding(name=name, kind="gate", outcome="passed", detail=ask())
    except RelaisError as problem:
        finding = Finding(name=name, kind="gate", outcome="failed", detail=" ".join(str(problem).split()))
    say(str(finding))
    return finding


def _file(path: Path) -> str:
    if not path.is_file():
        raise BadInput("there is no such file", where=str(path), remedy="set build.dockerfile to where it is")
    return path.name


def _directory(path: Path) -> str:
    if not path.is_dir():
        raise BadInput("there is no such directory", where=str(path), remedy="set build.context to where it is")
    return "found"


def _engine() -> str:
    info = Engine.connect().info()
    free = shutil.disk_usage(info.root if Path(info.root).exists() else "/").free
    if free < FREE_DISK:
        raise Refused(
            f"{free / 1e9:.1f} GB of disk are free where Docker keeps its images, and a build needs {FREE_DISK / 1e9:.0f}", where=info.root,
            remedy="`docker image prune` removes images that nothing uses; the build cache can stay",
        )  # fmt: skip
    return f"{info.version}, {info.memory / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB of disk free"


def _registry(app: App) -> str:
    found = ArtifactRegistry(app.file.project, app.file.region).repository(app.file.repository)
    return found.registry_uri


@effect("read what serves")  # the clients themselves ask again for ten seconds
def read_serving(app: App) -> Stable:
    """The service, its split resolved to names, the settings of what serves, and those that the release file makes of them."""
    run, file = CloudRun(), app.file
    repository = ArtifactRegistry(file.project, file.region).repository(file.repository)
    serving = run.read(app.service, access=True)
    if serving.exists and not serving.settled:
        require_free(serving, datetime.now(UTC))  # who is changing it, where it is a release
        raise Refused(f"{app.service} is being changed right now", remedy="wait until that deployment has ended, then release again")
    revisions = run.revisions(app.service)
    main = next((r for r in revisions if r.name == serving.split.main), None)
    env = load_env_file(Path(app.root) / file.deploy.env_file) if file.deploy.env_file else {}
    base = template_of(run.revision(app.service, main.name)) if main else None
    wanted, main_container, plain = file.deploy, file.deploy.container, file.deploy.env.plain
    before = spec_of(base, container=main_container, plain=plain) if base is not None else None
    template = changed(base, wanted, env, f"{repository.registry_uri}/{file.service}")
    after = spec_of(template, container=main_container, plain=plain)
    say(f"who serves {serving.service}: {serving.split if serving.exists else 'nobody, it does not exist yet'}")
    return Stable(serving=serving, main=main, before=before, after=after, revisions=revisions, registry_uri=repository.registry_uri)
