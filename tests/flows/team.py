"""A small team's repository and service, and the words in which these tests speak of a release."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml
from google.api_core.exceptions import NotFound
from google.cloud import artifactregistry_v1, run_v2
from prefect.client.schemas.objects import State

from flows.release import release
from relais import rollout
from relais.model import Record, ServiceName

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BY_NAME = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
CALL = 20.0

RELEASE: dict[str, Any] = {
    "region": "europe-west1",
    "repository": "app",
    "release": {"by": "The shop's team"},
    "preflight": {"git": {"branch": "main", "pushed": True}},
    "deploy": {"ready_within": "20s", "env_file": "env.yaml", "env": {"plain": ["COLOUR"]}, "public": True},
    "verify": {
        "http": [
            {"get": "/api/health", "json": {"status": "ok"}},
            {"get": "/api/metrics", "metrics": [{"group": "shop", "names": ["shop_orders_total", "shop_baskets_total"]}]},
        ],
        "logs": {"expect": ["shop is open"], "within": "10s"},
    },
    "canary": {
        "steps": [50],
        "bake": "2s",
        "deadline": "15s",
        "on_deadline": "hold",
        "finish": "as-before",
        "probes": {"rate": "20/s", "http": [{"get": "/api/sessions"}]},
    },
    "validate": {"watch": "1h"},
    "documents": {"report": "docs/{date}-{slug}.md", "index": "docs/README.md", "commit": True, "push": "auto"},
}
INDEX = "# Deployments\n\n| Date | Revision | Image tag | Description | Status |\n|---|---|---|---|---|\n"


class Clients:
    """The official clients on a local cloud's port, with nothing of ours in between."""

    def __init__(self, host: str) -> None:
        channel = grpc.insecure_channel(host)
        self.services = run_v2.ServicesClient(transport=run_v2.ServicesClient.get_transport_class("grpc")(channel=channel))
        self.revisions = run_v2.RevisionsClient(transport=run_v2.RevisionsClient.get_transport_class("grpc")(channel=channel))
        registry = artifactregistry_v1.ArtifactRegistryClient
        self.registry = registry(transport=registry.get_transport_class("grpc")(channel=channel))


def eventually(what: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true value that `what` gives, asked again and again for so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {found!r}"
        time.sleep(0.05)
    return found


def ended(operation: Any) -> Any:
    """What a long-running operation came to, asked often."""
    eventually(operation.done, 60)
    return operation.result(timeout=CALL)


@dataclass
class Team:
    """A repository with its bare remote, a service of its own name, and the hands of the people around it."""

    root: Path
    clients: Clients
    image: str  # of the revisions that people deploy by hand, by digest
    base_image: str
    home: Path
    api: str  # Prefect's
    service: ServiceName = field(default_factory=lambda: _unique(secrets.token_hex(3)))

    # -- the repository --------------------------------------------------------------------------------------------------

    @property
    def remote(self) -> Path:
        return self.root.with_suffix(".git")

    def lay_out(self) -> None:
        """The repository with one commit, pushed to its bare remote, and the registry's repository for its images."""
        self.root.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Team")
        self.git("config", "user.email", "team@example.org")
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.remote))
        self.git("remote", "add", "origin", str(self.remote))
        shutil.copy(HERE / "app" / "app.py", self.root)
        self.write("Dockerfile", f'FROM {self.base_image}\nCOPY app.py /app.py\nCMD ["python3", "-u", "/app.py"]\n')
        self.write(".dockerignore", "*\n!app.py\n")  # the same image for every team
        self.write(".gitignore", "build_tag.txt\n")
        self.write("env.yaml", "COLOUR: blue\n")
        self.write("docs/README.md", INDEX)
        self.release_file(commit=False)
        self.commit("feat: the shop opens")
        repository = artifactregistry_v1.Repository(format_=artifactregistry_v1.Repository.Format.DOCKER)
        wanted = {"parent": self.service.parent, "repository_id": "app", "repository": repository}
        ended(self.clients.registry.create_repository(request=wanted, timeout=CALL))

    def git(self, *arguments: str) -> str:
        alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        around = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-C", str(self.root), *arguments]
        done = subprocess.run(command, env={**around, **alone}, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        """A file of the working tree."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def commit(self, subject: str, files: Mapping[str, str] | None = None, *, push: bool = True) -> str:
        """Everything in the tree (and these files) in one commit, pushed: its hash."""
        for path, text in (files or {}).items():
            self.write(path, text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        if push:
            self.git("push", "--quiet", "--set-upstream", "origin", "main")
        return self.git("rev-parse", "HEAD")

    def change_env(self, subject: str = "feat: another colour", **env: str) -> str:
        """Other environment variables, committed and pushed: another revision of the same image."""
        return self.commit(subject, {"env.yaml": yaml.safe_dump({"COLOUR": secrets.token_hex(3), **env})})

    def change_code(self, subject: str = "feat: other goods") -> str:
        """Other code, committed and pushed: an image that nobody has built yet."""
        code = (HERE / "app" / "app.py").read_text(encoding="utf-8")
        return self.commit(subject, {"app.py": f"{code}\n# {secrets.token_hex(8)}\n"})

    def release_file(self, *, commit: bool = True, **over: Any) -> None:
        """The release file, with these sections merged over the usual ones (None: without the key), committed and pushed."""
        named = {"service": self.service.name, "project": self.service.project}
        self.write("release.yaml", yaml.safe_dump(_merged({**named, **RELEASE}, over), sort_keys=False))
        if commit:
            self.commit("chore: release.yaml")

    def pushed_file(self, path: str) -> str:
        """A file as the bare remote's main has it."""
        return self.git("--git-dir", str(self.remote), "show", f"main:{path}")

    def pushed_files(self, folder: str) -> list[str]:
        return self.git("--git-dir", str(self.remote), "ls-tree", "--name-only", "main", f"{folder}/").splitlines()

    # -- people's hands on the service -----------------------------------------------------------------------------------

    def get(self) -> run_v2.Service:
        return self.clients.services.get_service(name=self.service.full, timeout=CALL)

    def template(self, revision: str = "", *, commit: str = "", **env: str) -> run_v2.RevisionTemplate:
        stamps = {rollout.STAMP_COMMIT: commit} if commit else {}
        variables = [run_v2.EnvVar(name=name, value=value) for name, value in {"COLOUR": "white", **env}.items()]
        container = run_v2.Container(image=self.image, env=variables)
        return run_v2.RevisionTemplate(revision=revision, annotations=stamps, containers=[container])

    def baseline(self, *, latest: bool = False, commit: str = "", **env: str) -> str:
        """The first revision, by the official client; pinned to all the traffic unless it follows LATEST: its name."""
        name = f"{self.service.name}-first"
        wanted = run_v2.Service(template=self.template(name, commit=commit, **env), invoker_iam_disabled=True)
        request = {"parent": self.service.parent, "service_id": self.service.name, "service": wanted}
        ended(self.clients.services.create_service(request=request, timeout=CALL))
        if not latest:
            self.split({name: 100})
        return name

    def deploy(self, revision: str = "", **env: str) -> run_v2.Service:
        """A plain deploy, as `gcloud run deploy` does it: a new template, and traffic as it is."""
        wanted = run_v2.Service(name=self.service.full, template=self.template(revision, **env))
        return self._update(wanted, "template")

    def split(self, shares: Mapping[str, int], tags: Mapping[str, str] | None = None) -> None:
        """Another split by revision names (LATEST: what was deployed last), with tags, by the official client."""
        targets = [_target(name, percent=percent) for name, percent in shares.items()]
        targets += [_target(name, tag=tag) for tag, name in (tags or {}).items()]
        self._update(run_v2.Service(name=self.service.full, traffic=targets), "traffic")

    def annotate(self, **changes: Any) -> None:
        """Other words in the rollout's annotation, by the official client: what no run would write."""
        found = self.get()
        text = json.dumps({**self.rollout(), **changes})
        self._update(run_v2.Service(name=found.name, annotations={**found.annotations, rollout.ANNOTATION: text}), "annotations")

    def forget(self) -> None:
        """The rollout's annotation removed, as `gcloud run services replace` does."""
        found = self.get()
        kept = {name: text for name, text in found.annotations.items() if name != rollout.ANNOTATION}
        self._update(run_v2.Service(name=found.name, annotations=kept), "annotations")

    def close(self) -> None:
        """The service goes, and its containers with it; that it is not there is no error."""
        with contextlib.suppress(NotFound):
            self.clients.services.delete_service(name=self.service.full, timeout=CALL)

    def _update(self, wanted: run_v2.Service, *paths: str) -> run_v2.Service:
        request = {"service": wanted, "update_mask": {"paths": list(paths)}}
        done: run_v2.Service = ended(self.clients.services.update_service(request=request, timeout=CALL))
        return done

    # -- what a user sees ------------------------------------------------------------------------------------------------

    def who_serves(self) -> dict[str, int]:
        """Revision name -> percent, as the service says once it has settled; LATEST by its name."""
        found = eventually(lambda: (seen := self.get()) and not seen.reconciling and seen)
        newest = found.latest_ready_revision.rpartition("/")[2]
        return {status.revision or newest: status.percent for status in found.traffic_statuses if status.percent}

    def tags(self) -> dict[str, str]:
        """Tag -> revision."""
        return {target.tag: target.revision for target in self.get().traffic if target.tag}

    def follows_latest(self) -> bool:
        return any(target.type_ == LATEST and target.percent for target in self.get().traffic)

    def rollout(self) -> dict[str, Any]:
        """The rollout's annotation, whole; empty where there is none."""
        found: dict[str, Any] = json.loads(self.get().annotations.get(rollout.ANNOTATION, "{}"))
        return found

    def revisions(self) -> dict[str, run_v2.Revision]:
        """By short name, newest first."""
        found = self.clients.revisions.list_revisions(parent=self.service.full, timeout=CALL)
        return {revision.name.rpartition("/")[2]: revision for revision in found}

    def image_of(self, revision: str) -> str:
        return str(self.revisions()[revision].containers[0].image)

    def asks(self, path: str) -> httpx.Response:
        """The production URL's answer."""
        return httpx.get(self.get().uri + path, timeout=10, trust_env=False)

    # -- releasing -------------------------------------------------------------------------------------------------------

    def release(self, *, app: str = "", **parameters: Any) -> State[Any]:
        """A release of this repository (or of the Git URL in `app`), run in this process: its final state."""
        state: State[Any] = release(app or str(self.root), **parameters, return_state=True)
        return state

    def start_release(self, **parameters: Any) -> "subprocess.Popen[bytes]":
        """The same in a process of its own, for tests that kill it; its output is in `release.log` beside the repository."""
        call = f"import json, sys; from flows.release import release; release({str(self.root)!r}, **json.loads(sys.argv[1]))"
        with self.root.with_name("release.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", call, json.dumps(parameters)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PREFECT_API_URL": self.api},
            )  # fmt: skip

    def records(self) -> list[Record]:
        """The records of all releases on this machine, oldest first."""
        found = [Record.model_validate_json(path.read_bytes()) for path in (self.home / "records").glob("*.json")]
        return sorted(found, key=lambda record: record.started)

    @property
    def record(self) -> Record:
        """The record that was written last."""
        newest = max((self.home / "records").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return Record.model_validate_json(newest.read_bytes())


def _unique(number: str) -> ServiceName:
    return ServiceName(project=f"project-{number}", region="europe-west1", name=f"shop-{number}")


def _target(name: str, *, percent: int = 0, tag: str = "") -> run_v2.TrafficTarget:
    if name == "LATEST":
        return run_v2.TrafficTarget(type_=LATEST, percent=percent, tag=tag)
    return run_v2.TrafficTarget(type_=BY_NAME, revision=name, percent=percent, tag=tag)


def _merged(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, everything else replaces; None removes the key."""
    merged = dict(below)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged
