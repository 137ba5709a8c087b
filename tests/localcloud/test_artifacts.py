"""Artifact Registry of the local cloud, seen by the official client, over a real registry that a real Engine pushed to."""

import asyncio
import contextlib
import io
import shutil
import socket
import sqlite3
import subprocess
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from clouds import SOON as POLLING
from google.api_core import exceptions, retry
from google.cloud import artifactregistry_v1 as ar
from served import client, served

from localcloud import wire
from localcloud.artifacts.catalog import Catalog
from localcloud.artifacts.service import Artifacts
from localcloud.operations import Operations
from localcloud.state import State

LOCATION = "projects/demo/locations/europe-west1"
REPOSITORY = f"{LOCATION}/repositories/app"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SOON = retry.Retry(initial=0.02, maximum=0.1, timeout=10)


class Registry:
    """A docker-registry process with storage of its own."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"localhost:{free.getsockname()[1]}"
        self.config = home / "registry.yml"
        self.config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {home}/blobs}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '127.0.0.1:{self.host.rpartition(':')[2]}'}}\n"
        )
        self.start()

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(["docker-registry", "serve", str(self.config)], stdout=quiet, stderr=quiet)
        until = time.monotonic() + 15
        while True:
            try:
                assert httpx.get(f"http://{self.host}/v2/", timeout=2).status_code == 200
                return
            except httpx.TransportError:
                assert time.monotonic() < until, "docker-registry did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.fail("docker-registry is not installed: run the set-up")
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def push(registry: Registry) -> Iterator[Callable[[str, str, str], str]]:
    """Push an image of one small file under a path and a tag; gives its digest."""
    engine = docker.from_env(timeout=30)
    def push(path: str, tag: str, content: str) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo("content.txt")
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
        name = f"{registry.host}/{path}"
        engine.api.import_image_from_data(packed.getvalue(), repository=name, tag=tag)
        items = list(engine.api.push(name, tag, stream=True, decode=True))
        engine.images.remove(f"{name}:{tag}", force=True)
        assert not [item for item in items if "error" in item], items
        return str(next(item["aux"]["Digest"] for item in items if "aux" in item))

    yield push
    engine.close()


@pytest.fixture
def artifacts(registry: Registry, tmp_path: Path) -> Iterator[Any]:
    with served(starting(registry, tmp_path)) as address:
        yield client(ar.ArtifactRegistryClient, address)


def starting(registry: Registry, home: Path) -> Callable[[], Awaitable[Any]]:
    async def start() -> Any:
        state = State(home / "state.db")
        operations = Operations(state)
        artifacts = Artifacts(Catalog(registry.host, state), operations)

        async def close() -> None:
            await asyncio.gather(operations.close(), artifacts.close())
            state.close()

        service = wire.service("google.cloud.artifactregistry_v1", ar.ArtifactRegistryClient, artifacts)
        return [service, wire.operations(operations)], close

    return start


def create(artifacts: Any, name: str = REPOSITORY, **fields: Any) -> Any:
    parent, _, repository_id = name.rpartition("/repositories/")
    operation = artifacts.create_repository(
        parent=parent, repository_id=repository_id, repository=ar.Repository(format_=ar.Repository.Format.DOCKER, **fields)
    )
    return operation.result(retry=SOON, polling=SOON)


def test_a_repository_is_created_got_and_listed_and_says_where_to_push(artifacts: Any, registry: Registry) -> None:
    made = create(artifacts, description="images of the sample", labels={"team": "memory"})
    assert (made.name, made.registry_uri, made.description) == (REPOSITORY, f"{registry.host}/demo/app", "images of the sample")
    assert abs(made.create_time - datetime.now(UTC)) < timedelta(minutes=1)
    assert artifacts.get_repository(name=REPOSITORY) == made
    assert list(artifacts.list_repositories(parent=LOCATION)) == [made]
    assert not list(artifacts.list_repositories(parent="projects/demo/locations/us-central1"))


def test_a_repository_that_is_there_already_or_missing_is_said_as_google_says_it(artifacts: Any) -> None:
    with pytest.raises(exceptions.NotFound, match=r"Requested entity was not found\."):
        artifacts.get_repository(name=REPOSITORY)
    create(artifacts)
    with pytest.raises(exceptions.AlreadyExists, match="the repository already exists"):
        create(artifacts)


@pytest.mark.parametrize("repository_id", ["", "App", "a_b", "-a", "a-", "a" * 64, "a/b"])
def test_a_name_that_google_would_refuse_is_refused(artifacts: Any, repository_id: str) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="repository_id is"):
        artifacts.create_repository(parent=LOCATION, repository_id=repository_id, repository={"format_": "DOCKER"})


def test_only_docker_repositories_are_kept(artifacts: Any) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="DOCKER"):
        artifacts.create_repository(parent=LOCATION, repository_id="app", repository={"format_": "NPM"})


def test_repositories_of_the_same_name_in_two_regions_do_not_share_images(artifacts: Any, registry: Registry) -> None:
    create(artifacts)
    other = create(artifacts, "projects/demo/locations/us-central1/repositories/app")
    assert other.registry_uri == f"{registry.host}/demo/app.us-central1"


def test_repositories_outlive_a_restart(registry: Registry, tmp_path: Path) -> None:
    with served(starting(registry, tmp_path)) as address:
        made = create(client(ar.ArtifactRegistryClient, address))
    with served(starting(registry, tmp_path)) as address:
        assert client(ar.ArtifactRegistryClient, address).get_repository(name=REPOSITORY) == made


def test_a_pushed_image_is_listed_with_its_digest_tags_and_size(artifacts: Any, registry: Registry, push: Any) -> None:
    repository = f"{LOCATION}/repositories/pushed"
    create(artifacts, repository)
    digest = push("demo/pushed/emergence-app", "t1", "hello")
    assert push("demo/pushed/emergence-app", "stable", "hello") != digest  # the Engine dates an import: another image
    push("demo/pushed-not/emergence-app", "t1", "neighbour")
    image = next(each for each in artifacts.list_docker_images(parent=repository) if "t1" in each.tags)
    assert image.name == f"{repository}/dockerImages/emergence-app@{digest}"
    assert image.uri == f"{registry.host}/demo/pushed/emergence-app@{digest}"
    assert (list(image.tags), image.media_type) == (["t1"], DOCKER_MANIFEST)
    url = f"http://{registry.host}/v2/demo/pushed/emergence-app/manifests/{digest}"
    manifest = httpx.get(url, headers={"Accept": DOCKER_MANIFEST}).json()
    assert image.image_size_bytes == manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])
    for moment in (image.build_time, image.upload_time, image.update_time):
        assert abs(moment - datetime.now(UTC)) < timedelta(minutes=1)
    assert artifacts.get_docker_image(name=image.name) == image
    assert len(list(artifacts.list_docker_images(parent=repository))) == 2


def test_a_tag_that_moves_leaves_the_older_image_without_it(artifacts: Any, push: Any) -> None:
    repository = f"{LOCATION}/repositories/moving"
    create(artifacts, repository)
    old = push("demo/moving/emergence-app", "latest", "one")
    (before,) = artifacts.list_docker_images(parent=repository)
    new = push("demo/moving/emergence-app", "latest", "two")
    images = {image.name.rpartition("@")[2]: image for image in artifacts.list_docker_images(parent=repository)}
    assert {digest: list(image.tags) for digest, image in images.items()} == {old: [], new: ["latest"]}
    assert images[old].upload_time == before.upload_time
    assert images[old].update_time > before.update_time


def test_tags_are_listed_got_and_found_by_their_version(artifacts: Any, push: Any) -> None:
    repository = f"{LOCATION}/repositories/tagged"
    package = f"{repository}/packages/emergence-app"
    create(artifacts, repository)
    digests = {tag: push("demo/tagged/emergence-app", tag, tag) for tag in ("b", "a")}
    tags = list(artifacts.list_tags(parent=package))
    assert [tag.name for tag in tags] == [f"{package}/tags/a", f"{package}/tags/b"]
    assert [tag.version for tag in tags] == [f"{package}/versions/{digests[tag]}" for tag in ("a", "b")]
    assert artifacts.get_tag(name=f"{package}/tags/b") == tags[1]
    assert list(artifacts.list_tags(request={"parent": package, "filter": f'version="{tags[0].version}"'})) == tags[:1]
    assert list(artifacts.list_tags(request={"parent": package, "page_size": 1})) == tags
    with pytest.raises(exceptions.NotFound):
        artifacts.get_tag(name=f"{package}/tags/c")
    with pytest.raises(exceptions.InvalidArgument, match="filter is"):
        artifacts.list_tags(request={"parent": package, "filter": "tag:x"})


def test_images_come_in_pages_and_in_the_order_asked_for(artifacts: Any, push: Any) -> None:
    repository = f"{LOCATION}/repositories/many"
    create(artifacts, repository)
    for number in range(3):
        push(f"demo/many/group/app-{number}", "t", str(number))
        list(artifacts.list_docker_images(parent=repository))  # seen: its upload time
    ask = {"parent": repository, "page_size": 2, "order_by": "upload_time desc"}
    names = [image.name.rpartition("/")[2].partition("@")[0] for image in artifacts.list_docker_images(request=ask)]
    assert names == [f"group%2Fapp-{number}" for number in (2, 1, 0)]
    (image, *_) = artifacts.list_docker_images(request=ask)
    assert artifacts.get_docker_image(name=image.name) == image
    for wrong in ({"order_by": "size"}, {"page_token": "x"}, {"page_size": -1}):
        with pytest.raises(exceptions.InvalidArgument):
            artifacts.list_docker_images(request={"parent": repository, **wrong})


def test_an_image_or_a_repository_that_is_not_there_is_not_found(artifacts: Any) -> None:
    create(artifacts)
    digest = "sha256:" + "0" * 64
    assert not list(artifacts.list_docker_images(parent=REPOSITORY))
    with pytest.raises(exceptions.NotFound):
        artifacts.get_docker_image(name=f"{REPOSITORY}/dockerImages/emergence-app@{digest}")
    with pytest.raises(exceptions.NotFound):
        artifacts.list_docker_images(parent=f"{LOCATION}/repositories/other")
    with pytest.raises(exceptions.InvalidArgument, match="IMAGE@sha256:DIGEST"):
        artifacts.get_docker_image(name=f"{REPOSITORY}/dockerImages/emergence-app:t1")


def test_an_image_that_was_deleted_from_the_registry_is_forgotten(artifacts: Any, registry: Registry, push: Any) -> None:
    repository = f"{LOCATION}/repositories/deleted"
    create(artifacts, repository)
    digest = push("demo/deleted/emergence-app", "t1", "gone soon")
    (image,) = artifacts.list_docker_images(parent=repository)
    assert httpx.delete(f"http://{registry.host}/v2/demo/deleted/emergence-app/manifests/{digest}").status_code == 202
    assert not list(artifacts.list_docker_images(parent=repository))
    with pytest.raises(exceptions.NotFound):
        artifacts.get_docker_image(name=image.name)


def test_an_image_index_weighs_what_its_images_weigh(artifacts: Any, registry: Registry, push: Any) -> None:
    repository = f"{LOCATION}/repositories/indexed"
    create(artifacts, repository)
    digests = [push("demo/indexed/emergence-app", tag, tag) for tag in ("amd64", "arm64")]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [
            {"mediaType": DOCKER_MANIFEST, "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": tag}}
            for digest, tag in zip(digests, ("amd64", "arm64"), strict=True)
        ],
    }
    url = f"http://{registry.host}/v2/demo/indexed/emergence-app/manifests/both"
    assert httpx.put(url, json=index, headers={"Content-Type": index["mediaType"]}).status_code == 201
    sizes = {tuple(image.tags): image.image_size_bytes for image in artifacts.list_docker_images(parent=repository)}
    assert sizes["both",] == sizes["amd64",] + sizes["arm64",] > 0


def test_a_registry_that_is_down_is_unavailable_and_served_again_when_it_is_back(artifacts: Any, registry: Registry) -> None:
    create(artifacts)
    registry.stop()
    try:
        for ask in (
            lambda: artifacts.list_docker_images(parent=REPOSITORY, retry=None),
            lambda: artifacts.get_docker_image(name=f"{REPOSITORY}/dockerImages/a@sha256:{'0' * 64}", retry=None),
            lambda: artifacts.list_tags(parent=f"{REPOSITORY}/packages/a", retry=None),
        ):
            with pytest.raises(exceptions.ServiceUnavailable, match=f"The registry at {registry.host} does not answer .* Start it"):
                ask()
        assert artifacts.get_repository(name=REPOSITORY).name == REPOSITORY
    finally:
        registry.start()
    assert not list(artifacts.list_docker_images(parent=REPOSITORY))


def test_a_repository_whose_operation_cannot_be_written_is_not_there(artifacts: Any, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as state:
        state.execute("CREATE TRIGGER no BEFORE INSERT ON operations BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(exceptions.ServiceUnavailable, match="no room"):
        create(artifacts)
    with pytest.raises(exceptions.NotFound):
        artifacts.get_repository(name=REPOSITORY)


def test_the_repositories_of_an_earlier_version_are_taken_over(registry: Registry, tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "artifacts.sqlite")
    old.executescript(
        "CREATE TABLE repositories (name TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE, body BLOB NOT NULL);"
        "CREATE TABLE images (path TEXT NOT NULL, digest TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (path, digest));"
    )
    kept = ar.Repository(name=REPOSITORY, format_=ar.Repository.Format.DOCKER, registry_uri="localhost:1/demo/app")
    old.execute("INSERT INTO repositories VALUES (?, 'demo/app', ?)", (REPOSITORY, ar.Repository.serialize(kept)))
    old.commit()
    old.close()
    state = State(tmp_path / "cloud.sqlite")
    catalog = Catalog(registry.host, state)
    catalog.take_over(tmp_path / "artifacts.sqlite")
    found = catalog.repository(REPOSITORY)
    assert found is not None
    assert (found[0].registry_uri, found[1]) == (f"{registry.host}/demo/app", "demo/app")
    assert not (tmp_path / "artifacts.sqlite").exists()
    state.close()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"labels": {"Team": "x"}}, "labels has 'Team'='x'"),
        ({"docker_config": {"immutable_tags": True}}, "immutable_tags is not served here"),
        ({"kms_key_name": "k"}, "kms_key_name is not served here"),
        ({"cleanup_policies": {"a": {"action": "DELETE"}}}, "cleanup_policies is not served here"),
    ],
)
def test_what_would_have_no_effect_on_a_repository_is_refused(artifacts: Any, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(exceptions.InvalidArgument, match=says):
        create(artifacts, **wrong)


def test_versions_are_deleted_together_and_a_tag_is_moved(artifacts: Any, push: Any) -> None:
    repository = f"{LOCATION}/repositories/together"
    package = f"{repository}/packages/group%2Fapp"
    create(artifacts, repository)
    one, two, three = (f"{package}/versions/{push('demo/together/group/app', tag, tag)}" for tag in ("a", "b", "c"))
    artifacts.update_tag(tag=ar.Tag(name=f"{package}/tags/a", version=two), update_mask={"paths": ["version"]})
    assert [tag.version for tag in artifacts.list_tags(parent=package)] == [two, two, three]
    by_time = {"parent": package, "order_by": "create_time desc", "page_size": 2}
    assert {version.name for version in artifacts.list_versions(request=by_time)} == {one, two, three}
    assert artifacts.get_version(name=one).metadata["mediaType"] == DOCKER_MANIFEST
    artifacts.batch_delete_versions(request={"parent": package, "names": [one, two]}).result(polling=POLLING)
    assert [version.name for version in artifacts.list_versions(parent=package)] == [three]
    artifacts.delete_package(name=package).result(polling=POLLING)
    with pytest.raises(exceptions.NotFound):
        artifacts.get_package(name=package)
