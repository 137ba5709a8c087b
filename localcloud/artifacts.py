"""Artifact Registry over a real Docker registry: repositories are kept here, images and tags are read from the registry.

https://cloud.google.com/artifact-registry/docs/reference/rpc/google.devtools.artifactregistry.v1. The registry knows no repositories:
a push to one that was never created is accepted, where Google refuses it (approximated).
"""

import asyncio
import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote

from google.cloud import artifactregistry_v1 as ar

from localcloud import clock
from localcloud.distribution import Distribution, RegistryDown
from localcloud.pages import page
from localcloud.wire import Code, Context, Refusal

_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS repositories (name TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS images (path TEXT NOT NULL, digest TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (path, digest));
"""
_LOCATION: Final = re.compile(r"projects/([^/]+)/locations/([^/]+)")
_REPOSITORY: Final = re.compile(r"projects/([^/]+)/locations/([^/]+)/repositories/([^/]+)")
_IMAGE: Final = re.compile(r"(projects/[^/]+/locations/[^/]+/repositories/[^/]+)/dockerImages/([^/@]+)@(sha256:[0-9a-f]{64})")
_PACKAGE: Final = re.compile(r"(projects/[^/]+/locations/[^/]+/repositories/[^/]+)/packages/([^/]+)")
_TAG: Final = re.compile(r"(projects/[^/]+/locations/[^/]+/repositories/[^/]+/packages/[^/]+)/tags/([^/]+)")
_REPOSITORY_ID: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TAG_FILTER: Final = re.compile(r'\s*(?:version|name)\s*=\s*"([^"]+)"\s*')
_MISSING: Final = "Requested entity was not found."


class Starter(Protocol):
    """What starts long-running operations (`localcloud.operations.Operations`)."""

    def start(self, parent: str, metadata_pb: Any, coroutine: Any) -> Any: ...


class Artifacts:
    """The ArtifactRegistry service: Get/List/CreateRepository, Get/ListDockerImages, Get/ListTags.

    `registry` is where Docker pushes to (`localhost:5000`), `path` the SQLite file with the repositories and with what was
    seen of images: their first sight is their upload time. Used on the event loop's thread only.
    """

    def __init__(self, registry: str, path: Path, operations: Starter) -> None:
        self._registry = registry
        self._operations = operations
        self._distribution = Distribution(registry)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
        self._db.executescript(_SCHEMA)

    async def close(self) -> None:
        """Let go of the registry and of the file."""
        await self._distribution.close()
        self._db.close()

    async def GetRepository(self, request: Any, _: Context) -> Any:
        return self._repository(request.name)[0]

    async def ListRepositories(self, request: Any, _: Context) -> Any:
        _parsed(_LOCATION, request.parent, "parent", "projects/PROJECT/locations/LOCATION")
        _refuse_if(bool(request.filter or request.order_by), "filter and order_by are not served for repositories here: leave them empty.")
        rows = self._db.execute("SELECT body FROM repositories WHERE substr(name, 1, ?) = ? ORDER BY name", _under(request.parent))
        found, token = page([ar.Repository.deserialize(body) for (body,) in rows], request.page_size, request.page_token)
        return ar.ListRepositoriesResponse(repositories=found, next_page_token=token)

    async def CreateRepository(self, request: Any, _: Context) -> Any:
        project, location = _parsed(_LOCATION, request.parent, "parent", "projects/PROJECT/locations/LOCATION")
        name = f"{request.parent}/repositories/{request.repository_id}"
        _refuse_if(
            not _REPOSITORY_ID.fullmatch(request.repository_id),
            f"repository_id is {request.repository_id!r}; it must be 1 to 63 lower case letters, digits and hyphens, begin with a letter "
            "and not end with a hyphen.",
        )
        formats = ar.Repository.Format
        _refuse_if(request.repository.format_ != formats.DOCKER, "The local cloud only keeps repositories of the format DOCKER: set it.")
        if self._db.execute("SELECT 1 FROM repositories WHERE name = ?", (name,)).fetchone():
            raise Refusal(Code.ALREADY_EXISTS, "the repository already exists")
        path = f"{project}/{request.repository_id}"
        if self._db.execute("SELECT 1 FROM repositories WHERE path = ?", (path,)).fetchone():
            path = f"{path}.{location}"  # the registry has no regions; a repository's own name never has a dot
        now = clock.now()
        repository: Any = ar.Repository(request.repository)
        repository.name, repository.registry_uri = name, f"{self._registry}/{path}"
        repository.mode = ar.Repository.Mode.STANDARD_REPOSITORY
        repository.create_time = repository.update_time = now
        self._db.execute("INSERT INTO repositories VALUES (?, ?, ?)", (name, path, ar.Repository.serialize(repository)))

        async def created() -> Any:
            return repository

        return self._operations.start(request.parent, ar.OperationMetadata(), created())

    async def ListDockerImages(self, request: Any, _: Context) -> Any:
        repository, path = self._repository(request.parent)
        try:
            names = await self._distribution.images(path)
            images = [image for name in names for image in await self._images(repository.name, path, name)]
        except RegistryDown as error:
            raise Refusal(Code.UNAVAILABLE, str(error)) from error
        found, token = page(_ordered(images, request.order_by), request.page_size, request.page_token)
        return ar.ListDockerImagesResponse(docker_images=found, next_page_token=token)

    async def GetDockerImage(self, request: Any, _: Context) -> Any:
        parent, image, digest = _parsed(_IMAGE, request.name, "name", "REPOSITORY/dockerImages/IMAGE@sha256:DIGEST")
        repository, path = self._repository(parent)
        try:
            found = await self._images(repository.name, path, unquote(image), digest)
        except RegistryDown as error:
            raise Refusal(Code.UNAVAILABLE, str(error)) from error
        return _only([each for each in found if each.name.endswith(f"@{digest}")])

    async def ListTags(self, request: Any, _: Context) -> Any:
        wanted = _TAG_FILTER.fullmatch(request.filter)
        _refuse_if(bool(request.filter) and not wanted, f'filter is {request.filter!r}; it must be version="VERSION" or name="TAG".')
        tags = await self._tags(request.parent)
        if wanted:
            tags = [tag for tag in tags if wanted[1] in {tag.version, tag.name}]
        found, token = page(tags, request.page_size, request.page_token)
        return ar.ListTagsResponse(tags=found, next_page_token=token)

    async def GetTag(self, request: Any, _: Context) -> Any:
        package, _name = _parsed(_TAG, request.name, "name", "REPOSITORY/packages/PACKAGE/tags/TAG")
        return _only([tag for tag in await self._tags(package) if tag.name == request.name])

    def _repository(self, name: str) -> tuple[Any, str]:
        _parsed(_REPOSITORY, name, "repository", "projects/PROJECT/locations/LOCATION/repositories/REPOSITORY")
        row = self._db.execute("SELECT body, path FROM repositories WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise Refusal(Code.NOT_FOUND, _MISSING)
        return ar.Repository.deserialize(row[0]), row[1]

    async def _tags(self, package: str) -> list[Any]:
        parent, image = _parsed(_PACKAGE, package, "package", "REPOSITORY/packages/PACKAGE")
        _, path = self._repository(parent)
        try:
            tags = await self._distribution.tags(f"{path}/{unquote(image)}")
        except RegistryDown as error:
            raise Refusal(Code.UNAVAILABLE, str(error)) from error
        return [ar.Tag(name=f"{package}/tags/{tag}", version=f"{package}/versions/{digest}") for tag, digest in sorted(tags.items())]

    async def _images(self, repository: str, path: str, image: str, wanted: str = "") -> list[Any]:
        """The image under each digest that has a tag, had one when last seen, or is wanted; by digest."""
        where = f"{path}/{image}"
        tags: dict[str, list[str]] = {}
        for tag, digest in (await self._distribution.tags(where)).items():
            tags.setdefault(digest, []).append(tag)
        known = {digest: ar.DockerImage.deserialize(body) for digest, body in self._seen(where)}
        digests = sorted({*tags, *known, *([wanted] if wanted else [])})
        gone = await asyncio.gather(*(self._gone(where, digest, tags) for digest in digests))
        return [
            await self._remembered(repository, where, image, digest, sorted(tags.get(digest, [])), known.get(digest))
            for digest, lost in zip(digests, gone, strict=True)
            if not lost
        ]

    async def _gone(self, where: str, digest: str, tags: dict[str, list[str]]) -> bool:
        if digest in tags or await self._distribution.digest(where, digest):
            return False
        self._db.execute("DELETE FROM images WHERE path = ? AND digest = ?", (where, digest))
        return True

    def _seen(self, where: str) -> list[tuple[str, bytes]]:
        return self._db.execute("SELECT digest, body FROM images WHERE path = ?", (where,)).fetchall()

    async def _remembered(self, repository: str, where: str, image: str, digest: str, tags: list[str], known: Any | None) -> Any:
        """The image as known, brought up to date: a digest never changes, its tags do."""
        if known is not None and list(known.tags) == tags:
            return known
        now = clock.now()
        if known is None:
            manifest = await self._distribution.manifest(where, digest)
            known = ar.DockerImage(
                name=f"{repository}/dockerImages/{quote(image, safe='')}@{digest}",
                uri=f"{self._registry}/{where}@{digest}",
                image_size_bytes=manifest.size_bytes if manifest else 0,
                media_type=manifest.media_type if manifest else "",
                upload_time=now,
                build_time=manifest.built if manifest else None,
            )
        known.tags = tags
        known.update_time = now
        self._db.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", (where, digest, ar.DockerImage.serialize(known)))
        return known


def _parsed(pattern: re.Pattern[str], text: str, what: str, shape: str) -> Sequence[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise Refusal(Code.INVALID_ARGUMENT, f"Invalid {what}: {text!r}. It must be {shape}.")
    return found.groups()


def _refuse_if(wrong: bool, message: str) -> None:
    if wrong:
        raise Refusal(Code.INVALID_ARGUMENT, message)


def _only(found: list[Any]) -> Any:
    if not found:
        raise Refusal(Code.NOT_FOUND, _MISSING)
    return found[0]


def _under(parent: str) -> tuple[int, str]:
    prefix = f"{parent}/repositories/"
    return len(prefix), prefix


def _ordered(images: list[Any], order_by: str) -> list[Any]:
    words = order_by.split()
    keys: dict[str, Callable[[Any], Any]] = {
        "name": lambda image: image.name, "upload_time": lambda image: image.upload_time, "update_time": lambda image: image.update_time,
    }  # fmt: skip
    if not words:
        return images
    _refuse_if(
        words[0] not in keys or words[1:] not in ([], ["asc"], ["desc"]),
        f"order_by is {order_by!r}; it must be name, upload_time or update_time, and asc or desc.",
    )
    return sorted(images, key=keys[words[0]], reverse=words[1:] == ["desc"])

