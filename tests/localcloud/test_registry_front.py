"""What an unmodified Docker Engine hears from the local cloud's Artifact Registry when it pushes and pulls."""

import asyncio
import http.client
import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from clouds import SOON, free_port
from google.api_core import exceptions
from google.cloud import artifactregistry_v1 as ar
from served import client, served

from localcloud import wire
from localcloud.artifacts.catalog import Catalog
from localcloud.artifacts.registryfront import RegistryFront
from localcloud.artifacts.service import Artifacts
from localcloud.operations import Operations
from localcloud.state import State

LOCATION = "projects/demo/locations/europe-west1"


@dataclass
class Callers:
    """Tokens, and what their holders may not do."""

    tokens: dict[str, str] = field(default_factory=dict)
    denied: set[tuple[str, str]] = field(default_factory=set)

    def holder(self, token: str) -> str | None:
        return self.tokens.get(token)

    def permits(self, holder: str, permission: str, resource: str) -> bool:  # noqa: ARG002
        return (holder, permission.rpartition(".")[2]) not in self.denied


@dataclass
class Fronted:
    """A front of one test, with Artifact Registry beside it."""

    address: str
    artifacts: Any
    front: RegistryFront
    loop: asyncio.AbstractEventLoop

    def wait(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(5)

    def create(self, repository_id: str) -> str:
        wanted = ar.Repository(format_=ar.Repository.Format.DOCKER)
        operation = self.artifacts.create_repository(parent=LOCATION, repository_id=repository_id, repository=wanted)
        return str(operation.result(polling=SOON).registry_uri)


@contextmanager
def fronting(registry: str, home: Path) -> Iterator[Fronted]:
    made: list[Any] = []

    async def start() -> Any:
        state = State(home / "cloud.sqlite")
        operations, catalog = Operations(state), Catalog(registry, state)
        front = RegistryFront("127.0.0.1", state, catalog)
        catalog.host = front.address
        artifacts = Artifacts(catalog, operations)
        await front.open()
        made.extend((front, asyncio.get_running_loop()))

        async def close() -> None:
            await asyncio.gather(operations.close(), artifacts.close(), front.close())
            state.close()

        service = wire.service("google.cloud.artifactregistry_v1", ar.ArtifactRegistryClient, artifacts)
        return [service, wire.operations(operations)], close

    with served(start) as address:
        yield Fronted(made[0].address, client(ar.ArtifactRegistryClient, address), *made)


@pytest.fixture
def fronted(registry: str, tmp_path: Path) -> Iterator[Fronted]:
    with fronting(registry, tmp_path) as made:
        yield made


Push = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def push(engine: docker.DockerClient) -> Push:
    """Push an image of one file under a name; what the Engine said."""

    def push(name: str, content: bytes = b"x", token: str = "") -> list[dict[str, Any]]:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo("content.bin")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        where, tag = name.rsplit(":", 1)
        engine.api.import_image_from_data(packed.getvalue(), repository=where, tag=tag)
        auth = {"username": "oauth2accesstoken", "password": token} if token else None
        items = list(engine.api.push(where, tag, stream=True, decode=True, auth_config=auth))
        engine.images.remove(name, force=True)
        return items

    return push


def digest_of(items: list[dict[str, Any]]) -> str:
    assert not [item for item in items if "error" in item], items
    return str(next(item["aux"]["Digest"] for item in items if "aux" in item))


def error_of(items: list[dict[str, Any]]) -> str:
    return next((str(item["error"]) for item in items if "error" in item), "")


def test_docker_pushes_and_pulls_and_the_image_is_known_from_the_push_on(fronted: Fronted, push: Push, engine: docker.DockerClient) -> None:
    uri = fronted.create("app")
    assert uri == f"{fronted.address}/demo/app"
    before = datetime.now(UTC)
    first = digest_of(push(f"{uri}/web:t1", b"one"))
    between = datetime.now(UTC)
    second = digest_of(push(f"{uri}/web:t1", b"two"))
    images = {each.name.rpartition("@")[2]: each for each in fronted.artifacts.list_docker_images(parent=f"{LOCATION}/repositories/app")}
    assert {digest: list(image.tags) for digest, image in images.items()} == {first: [], second: ["t1"]}
    assert before < images[first].upload_time < between < images[second].upload_time
    assert images[first].update_time > between
    assert images[second].uri == f"{uri}/web@{second}"
    pulled = engine.images.pull(f"{uri}/web@{first}")
    engine.images.remove(str(pulled.id), force=True)


def test_a_push_or_a_pull_where_no_repository_was_created_is_refused(fronted: Fronted, push: Push, engine: docker.DockerClient) -> None:
    said = error_of(push(f"{fronted.address}/demo/nowhere/web:t1"))
    assert said == 'name unknown: Repository "nowhere" not found'
    with pytest.raises(docker.errors.NotFound, match='Repository "nowhere" not found'):
        engine.images.pull(f"{fronted.address}/demo/nowhere/web:t1")


@pytest.mark.parametrize("path", ["demo/app/../../{other}/tags/list", "demo/app/web/tags/../../../../{other}/tags/list", "../v2/_catalog"])
def test_no_way_leads_through_one_repository_into_another(fronted: Fronted, path: str, push: Push, registry: str) -> None:
    fronted.create("app")
    push(f"{registry}/elsewhere/kept/web:t1")
    caller = http.client.HTTPConnection(fronted.address)
    caller.request("GET", f"/v2/{path.format(other='elsewhere/kept/web')}")
    answer = caller.getresponse()
    assert (answer.status, b"NAME_INVALID" in answer.read()) == (404, True)


def test_tokens_and_permissions_are_refused_as_google_refuses_them(fronted: Fronted, push: Push, engine: docker.DockerClient) -> None:
    uri = fronted.create("closed")
    callers = Callers({"good": "writer", "weak": "reader"}, {("reader", "uploadArtifacts")})
    fronted.front.doorkeeper, fronted.front.closed = callers, True
    resource = f"{LOCATION}/repositories/closed"
    assert error_of(push(f"{uri}/web:t1", token="bad")) == "unauthorized: authentication failed"
    denied = f'denied: Permission "artifactregistry.repositories.uploadArtifacts" denied on resource "{resource}" (or it may not exist)'
    assert error_of(push(f"{uri}/web:t1", token="weak")) == denied
    assert "Unauthenticated request" in error_of(push(f"{uri}/web:t1"))
    digest = digest_of(push(f"{uri}/web:t1", token="good"))
    assert engine.images.get_registry_data(f"{uri}/web:t1", fronted.front.credentials(uri)).id == digest
    assert httpx.get(f"http://{fronted.address}/v2/").headers["WWW-Authenticate"].startswith("Bearer realm=")


def test_a_registry_that_is_down_says_so_and_is_back_on_its_port(fronted: Fronted, push: Push) -> None:
    uri = fronted.create("down")
    fronted.front.met = lambda _: True
    answer = httpx.get(f"http://{fronted.address}/v2/demo/down/web/tags/list")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (503, "UNAVAILABLE")
    fronted.front.met = None
    fronted.wait(fronted.front.shut())
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{fronted.address}/v2/")
    fronted.wait(fronted.front.listen())
    assert digest_of(push(f"{uri}/web:t1"))


def test_a_registry_that_is_dead_behind_the_front_is_named(tmp_path: Path) -> None:
    dead = f"localhost:{free_port()}"
    with fronting(dead, tmp_path) as fronted:
        fronted.create("app")
        answer = httpx.get(f"http://{fronted.address}/v2/demo/app/web/tags/list")
        assert answer.status_code == 503
        assert f"{dead}, does not answer" in answer.json()["errors"][0]["message"]
        with pytest.raises(exceptions.ServiceUnavailable, match=f"The registry at {dead} does not answer"):
            fronted.artifacts.list_docker_images(parent=f"{LOCATION}/repositories/app", retry=None)


def test_versions_and_tags_are_deleted_in_the_registry_too(fronted: Fronted, push: Push) -> None:
    uri = fronted.create("gone")
    digest = digest_of(push(f"{uri}/web:t1"))
    package = f"{LOCATION}/repositories/gone/packages/web"
    version = f"{package}/versions/{digest}"
    made = fronted.artifacts.create_tag(parent=package, tag_id="t2", tag=ar.Tag(version=version))
    assert made == fronted.artifacts.get_tag(name=f"{package}/tags/t2")
    with pytest.raises(exceptions.FailedPrecondition, match="tagged: t1, t2"):
        fronted.artifacts.delete_version(name=version)
    fronted.artifacts.delete_tag(name=f"{package}/tags/t1")
    assert httpx.head(f"http://{fronted.address}/v2/demo/gone/web/manifests/t1").status_code == 404
    found = fronted.artifacts.get_version(request={"name": version, "view": "FULL"})
    assert [tag.name for tag in found.related_tags] == [f"{package}/tags/t2"]
    assert [each.name for each in fronted.artifacts.list_packages(parent=f"{LOCATION}/repositories/gone")] == [package]
    fronted.artifacts.delete_version(request={"name": version, "force": True}).result(polling=SOON)
    assert not list(fronted.artifacts.list_versions(parent=package))
    assert not list(fronted.artifacts.list_packages(parent=f"{LOCATION}/repositories/gone"))


def test_a_deleted_repository_takes_its_images_with_it(fronted: Fronted, push: Push) -> None:
    uri, name = fronted.create("short"), f"{LOCATION}/repositories/short"
    changed = {"name": name, "description": "not for long", "labels": {"team": "memory"}}
    repository = fronted.artifacts.update_repository(repository=ar.Repository(changed), update_mask={"paths": ["description", "labels"]})
    assert (repository.description, dict(repository.labels)) == ("not for long", {"team": "memory"})
    digest_of(push(f"{uri}/web:t1"))
    assert fronted.artifacts.get_repository(name=name).size_bytes > 0
    fronted.artifacts.delete_repository(name=name).result(polling=SOON)
    with pytest.raises(exceptions.NotFound):
        fronted.artifacts.get_repository(name=name)
    assert error_of(push(f"{uri}/web:t2")) == 'name unknown: Repository "short" not found'
    fronted.create("short")
    assert not list(fronted.artifacts.list_docker_images(parent=name))


def test_the_front_keeps_its_port_and_says_when_another_program_has_it(
    registry: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with fronting(registry, tmp_path) as first:
        uri = first.create("app")
    with fronting(registry, tmp_path) as again:
        assert again.artifacts.get_repository(name=f"{LOCATION}/repositories/app").registry_uri == uri
        assert not caplog.records
        with fronting(registry, tmp_path) as moved:
            assert moved.address != again.address
            said = f"Port {again.front.port} on 127.0.0.1, which images are named by, is in use by another program"
            assert [record.getMessage() for record in caplog.records if said in record.getMessage()]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "["])
def test_a_name_of_another_machine_is_refused_as_a_browser_may_have_been_led_here_by_it(fronted: Fronted, host: str) -> None:
    refused = httpx.get(f"http://{fronted.address}/v2/", headers={"Host": host}, timeout=5)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (403, "DENIED")
    assert "is not this one" in refused.json()["errors"][0]["message"]
