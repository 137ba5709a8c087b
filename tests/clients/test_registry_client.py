"""Artifact Registry, read through the official client, over a real registry that a real Engine pushed to."""

import io
import json
import re
import secrets
import socket
import tarfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
from google.cloud import artifactregistry_v1 as ar

from relais.clients.endpoint import client_of
from relais.clients.registry import ArtifactRegistry, Repository
from relais.errors import Denied, Missing, Unavailable

PROJECT, REGION = "project-1", "europe-west1"


@pytest.fixture
def repository(at_cloud: Any) -> Repository:  # noqa: ARG001 - the endpoint has to be there
    """A repository of this test alone."""
    name = f"app-{secrets.token_hex(4)}"
    made = ar.Repository(format_=ar.Repository.Format.DOCKER)
    client_of(ar.ArtifactRegistryClient).create_repository(
        parent=f"projects/{PROJECT}/locations/{REGION}", repository_id=name, repository=made, timeout=10
    ).result(timeout=10)
    return ArtifactRegistry(PROJECT, REGION).repository(name)


@pytest.fixture
def push(engine: docker.DockerClient, repository: Repository) -> Callable[[str, str, str], str]:
    """Push an image of one small file under a name and a tag; gives its digest."""

    def push(image: str, tag: str, content: str) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo("content.txt")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        name = f"{repository.registry_uri}/{image}"
        engine.api.import_image_from_data(packed.getvalue(), repository=name, tag=tag)
        items = list(engine.api.push(name, tag, stream=True, decode=True))
        engine.images.remove(f"{name}:{tag}", force=True)
        return str(next(item["aux"]["Digest"] for item in items if "aux" in item))

    return push


def test_a_repository_says_where_docker_pushes_to(repository: Repository) -> None:
    assert repository.format == "DOCKER"
    assert re.fullmatch(rf"localhost:\d+/{PROJECT}/{repository.name}", repository.registry_uri)


@pytest.mark.usefixtures("at_cloud")
def test_a_missing_repository_is_missing_with_the_command_that_creates_it() -> None:
    with pytest.raises(Missing) as caught:
        ArtifactRegistry(PROJECT, REGION).repository("nowhere")
    assert f"gcloud artifacts repositories create nowhere --repository-format=docker --location={REGION}" in caught.value.remedy


def test_an_image_is_found_by_tag_and_by_digest(repository: Repository, push: Callable[[str, str, str], str]) -> None:
    digest = push("web", "t1", "one")
    registry = ArtifactRegistry(PROJECT, REGION)
    by_tag, by_digest = registry.image_by_tag(repository.name, "web", "t1"), registry.image_by_digest(repository.name, "web", digest)
    assert by_tag is not None
    assert by_tag == by_digest
    assert (by_tag.name, by_tag.digest, by_tag.tags) == ("web", digest, ("t1",))
    assert by_tag.size > 0
    assert by_tag.uploaded is not None


def test_a_tag_that_was_moved_is_found_where_it_is_now(repository: Repository, push: Callable[[str, str, str], str]) -> None:
    first, second = push("web", "t1", "one"), push("web", "t1", "two")
    found = ArtifactRegistry(PROJECT, REGION).image_by_tag(repository.name, "web", "t1")
    assert found is not None
    assert found.digest == second != first


def test_what_is_not_there_is_none(repository: Repository, push: Callable[[str, str, str], str]) -> None:
    push("web", "t1", "one")
    registry = ArtifactRegistry(PROJECT, REGION)
    assert registry.image_by_tag(repository.name, "web", "t2") is None
    assert registry.image_by_tag(repository.name, "other", "t1") is None
    assert registry.image_by_digest(repository.name, "web", f"sha256:{'0' * 64}") is None


def test_the_images_of_one_name_are_told_from_the_others(repository: Repository, push: Callable[[str, str, str], str]) -> None:
    web, deep = push("web", "t1", "one"), push("team/web", "t1", "two")
    registry = ArtifactRegistry(PROJECT, REGION)
    assert {(image.name, image.digest) for image in registry.images(repository.name)} == {("web", web), ("team/web", deep)}
    assert [image.digest for image in registry.images(repository.name, "team/web")] == [deep]
    found = registry.image_by_tag(repository.name, "team/web", "t1")
    assert found is not None
    assert found.digest == deep


def test_an_unreachable_registry_is_an_outage(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", f"127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="repository app"):
        ArtifactRegistry(PROJECT, REGION, within=1.0).repository("app")


# -- who may push -----------------------------------------------------------------------------------------------------------


class Tokens(BaseHTTPRequestHandler):
    """A token endpoint: it gives one access token, or says no."""

    answer = (200, {"access_token": "ya29.one", "expires_in": 3600, "token_type": "Bearer"})

    def do_POST(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        return


def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Default credentials as `gcloud auth application-default login` leaves them, with their token endpoint on this machine."""
    found = {
        "type": "external_account_authorized_user", "audience": "//iam.googleapis.com/x", "client_id": "c", "client_secret": "s",
        "refresh_token": "r", "token_url": f"http://127.0.0.1:{port}/token", "token_info_url": f"http://127.0.0.1:{port}/info",
    }  # fmt: skip
    (tmp_path / "adc.json").write_text(json.dumps(found))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def served(handler: type[BaseHTTPRequestHandler]) -> HTTPServer:
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.usefixtures("at_cloud")
def test_googles_registry_gets_a_token_of_the_default_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = served(Tokens)
    try:
        login(tmp_path, monkeypatch, server.server_port)
        auth = ArtifactRegistry(PROJECT, REGION).auth("europe-west1-docker.pkg.dev/project-1/app/web:t1")
    finally:
        server.shutdown()
        server.server_close()
    assert auth == {"username": "oauth2accesstoken", "password": "ya29.one"}


@pytest.mark.usefixtures("at_cloud")
@pytest.mark.parametrize("ref", ["localhost:5000/p/app/web:t1", "docker.io/pkg.dev/web", "evil-pkg.dev/x", "web"])
def test_no_other_registry_gets_a_token(ref: str) -> None:
    assert ArtifactRegistry(PROJECT, REGION).auth(ref) is None


@pytest.mark.usefixtures("at_cloud")
def test_without_credentials_the_push_is_refused_with_the_command_that_logs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(Denied) as caught:
        ArtifactRegistry(PROJECT, REGION).auth("europe-west1-docker.pkg.dev/p/app/web:t1")
    assert "gcloud auth application-default login" in caught.value.remedy


@pytest.mark.usefixtures("at_cloud")
def test_a_token_endpoint_that_is_away_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        login(tmp_path, monkeypatch, taken.getsockname()[1])
        with pytest.raises(Unavailable):
            ArtifactRegistry(PROJECT, REGION).auth("europe-west1-docker.pkg.dev/p/app/web:t1")
