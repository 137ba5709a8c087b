"""The local cloud as a process of its own, and the official clients pointed at it, in the words that these tests use."""

import contextlib
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import grpc
import httpx
from google.api_core import exceptions
from google.api_core.future.polling import DEFAULT_POLLING
from google.cloud import run_v2, secretmanager_v1
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client

ROOT = Path(__file__).parents[2]
PARENT = "projects/test-project/locations/europe-west1"
SOON = DEFAULT_POLLING.with_delay(initial=0.05, maximum=0.2).with_timeout(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: Callable[[], Any], seconds: float = 15) -> Any:
    """The first true value that `what` gives, asked again and again for so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {found!r}"
        time.sleep(0.05)
    return found


class PushFailed(Exception):
    """What Docker said of a push."""


def push(image: str, what: str = "") -> None:
    """Push an image, or another one by this name, which is taken away again."""
    repository, tag = image.rsplit(":", 1)
    engine = docker.from_env(timeout=120)
    if what:
        engine.api.tag(what, repository, tag)
    try:
        for item in engine.images.push(repository, tag=tag, stream=True, decode=True):
            if "error" in item:
                raise PushFailed(item["error"])
    finally:
        if what:
            engine.images.remove(image)


@dataclass
class Cloud:
    """A local cloud in a process of its own, and the official clients pointed at it."""

    state: Path
    registry: str
    image: str
    options: tuple[str, ...] = ()
    clone: str = field(default_factory=lambda: "test-" + secrets.token_hex(3))
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[str] | None" = None
    stopped: bool = False  # by its test

    def start(self) -> None:
        command = [sys.executable, "-m", "localcloud", "--port", str(self.port), "--state", str(self.state)]
        command += ["--registry", self.registry, "--clone", self.clone, *self.options]
        with (self.state.parent / f"{self.clone}.log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        self.stopped = False
        line = self.process.stdout.readline()
        assert "serves on" in line, self.own_log()[-3000:]
        self.connect()

    def connect(self) -> None:
        """Point the clients at it."""
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.services = run_v2.ServicesClient(transport=run_v2.ServicesClient.get_transport_class("grpc")(channel=channel))
        self.revisions = run_v2.RevisionsClient(transport=run_v2.RevisionsClient.get_transport_class("grpc")(channel=channel))
        self.logging = LoggingServiceV2Client(transport=LoggingServiceV2Client.get_transport_class("grpc")(channel=channel))
        self.channel = channel
        self.admin = (self.state / "admin").read_text().strip()

    def own_log(self) -> str:
        """What its process has logged."""
        return (self.state.parent / f"{self.clone}.log").read_text()

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.stopped = True
        self.channel.close()
        self.process.send_signal(how)
        code = self.process.wait(15)
        if self.process.stdout:
            self.process.stdout.close()
        return code

    def end(self) -> None:
        running = self.process is not None and self.process.poll() is None
        if running:
            self.stop()
        self.down()
        assert running or self.stopped, f"the local cloud ended by itself: {self.own_log()[-3000:]}"

    def down(self) -> None:
        command = [sys.executable, "-m", "localcloud", "down", "--clone", self.clone]
        subprocess.run(command, cwd=ROOT, check=True, timeout=60, stdout=subprocess.DEVNULL)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer of the admin endpoint."""
        answer = self.request(method, path, body, **headers)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """The whole response of the admin endpoint, also one that refuses."""
        return httpx.request(method, f"http://{self.admin}{path}", json=body, headers=headers, timeout=30, trust_env=False)

    def fault(self, kind: str, **values: Any) -> str:
        """Ask for a fault; gives its id."""
        return str(self.ask("POST", "/faults", {"kind": kind, **values})["id"])

    def met(self, fault: str) -> int:
        """How often a fault was met."""
        return int(self.ask("GET", f"/faults/{fault}")["met"]["count"])

    # what the tests say

    def of(self, client: Any) -> Any:
        """Another official client, pointed at this cloud."""
        return client(transport=client.get_transport_class("grpc")(channel=self.channel))

    def service(self, name: str, **values: Any) -> run_v2.Service:  # noqa: ARG002 - the name is for the request, not for the message
        """A public service of the test image to be created; `env`, `revision`, `traffic` and other fields by name."""
        return run_v2.Service(
            template=self.template(values.pop("env", {}), values.pop("revision", ""), **values.pop("template", {})),
            invoker_iam_disabled=values.pop("public", True),
            **values,
        )

    def named(self, name: str, **values: Any) -> run_v2.Service:
        """The same, to be updated: with its name."""
        made = self.service(name, **values)
        made.name = f"{PARENT}/services/{name}"
        return made

    def keep_secret(self, name: str, payload: bytes) -> str:
        """Have a secret with one more version: that version's name."""
        client = secretmanager_v1.SecretManagerServiceClient
        manager, parent = client(transport=client.get_transport_class("grpc")(channel=self.channel)), "projects/test-project"
        with contextlib.suppress(exceptions.AlreadyExists):
            manager.create_secret(parent=parent, secret_id=name, secret={"replication": {"automatic": {}}})
        version = manager.add_secret_version(parent=f"{parent}/secrets/{name}", payload={"data": payload})
        return str(version.name)

    def template(self, env: dict[str, str], revision: str = "", **values: Any) -> run_v2.RevisionTemplate:
        image = values.pop("image", self.image)
        variables = [run_v2.EnvVar(name=key, value=value) for key, value in env.items()]
        container = run_v2.Container(image=image, env=variables, **values.pop("container", {}))
        return run_v2.RevisionTemplate(revision=revision, containers=[container], **values)

    def create(self, name: str, **values: Any) -> run_v2.Service:
        service = self.service(name, **values)
        return self.services.create_service(parent=PARENT, service=service, service_id=name).result(polling=SOON)

    def update(self, service: run_v2.Service, *paths: str) -> run_v2.Service:
        request = run_v2.UpdateServiceRequest(service=service, update_mask={"paths": list(paths)})
        return self.services.update_service(request).result(polling=SOON)

    def get(self, name: str) -> run_v2.Service:
        return self.services.get_service(name=f"{PARENT}/services/{name}")

    def containers(self, running: bool = False) -> list[Any]:
        return docker.from_env(timeout=30).containers.list(
            all=not running, filters={"label": f"relais.clone={self.clone}"}, ignore_removed=True
        )

    def entries(self, log: str, service: str, more: str = "") -> list[Any]:
        name = f"projects/test-project/logs/run.googleapis.com%2F{log.replace('/', '%2F')}"
        wanted = f'logName="{name}" AND resource.labels.service_name="{service}" {more}'
        request = {"resource_names": ["projects/test-project"], "filter": wanted, "page_size": 1000}
        return list(self.logging.list_log_entries(request=request))


def pinned(revision: str, percent: int = 0, tag: str = "") -> run_v2.TrafficTarget:
    kind = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
    return run_v2.TrafficTarget(type_=kind, revision=revision, percent=percent, tag=tag)


def latest(percent: int = 100, tag: str = "") -> run_v2.TrafficTarget:
    kind = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
    return run_v2.TrafficTarget(type_=kind, percent=percent, tag=tag)
