"""What Artifact Registry knows beyond the registry itself: its repositories, and of each image when it came and which tags it has."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from google.cloud import artifactregistry_v1 as ar

from localcloud import clock
from localcloud.artifacts.distribution import Distribution
from localcloud.state import State

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS repositories (name TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS images (path TEXT NOT NULL, digest TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (path, digest));
"""


class Catalog:
    """Repositories and images over one registry; used on the event loop's thread only.

    `registry` is the registry itself (`localhost:5000`); `host` is how Docker names it, which a front in between changes.
    """

    def __init__(self, registry: str, state: State) -> None:
        self.registry = self.host = registry
        self.distribution = Distribution(registry)
        self._db = state.connection
        self.transaction = state.transaction
        self._db.executescript(_SCHEMA)

    def take_over(self, old: Path) -> None:
        """Take the rows of the file that held them once, and remove it."""
        if not old.exists():
            return
        self._db.execute("ATTACH ? AS old", (str(old),))
        for table in ("repositories", "images"):
            self._db.execute(f"INSERT OR IGNORE INTO main.{table} SELECT * FROM old.{table}")
        self._db.execute("DETACH old")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{old}{suffix}").unlink(missing_ok=True)

    # repositories

    def repository(self, name: str) -> tuple[Any, str] | None:
        """A repository and the path of its images in the registry."""
        row = self._db.execute("SELECT body, path FROM repositories WHERE name = ?", (name,)).fetchone()
        return (self._shown(*row), row[1]) if row else None

    def repositories(self, parent: str) -> list[Any]:
        """The repositories of `projects/P/locations/L`, by name."""
        prefix = f"{parent}/repositories/"
        query = "SELECT body, path FROM repositories WHERE substr(name, 1, ?) = ? ORDER BY name"
        return [self._shown(*row) for row in self._db.execute(query, (len(prefix), prefix))]

    def at(self, path: str) -> str | None:
        """The name of the repository whose images are under this path of the registry."""
        row = self._db.execute("SELECT name FROM repositories WHERE path = ?", (path,)).fetchone()
        return row[0] if row else None

    def add(self, repository: Any, project: str, repository_id: str, location: str) -> Any:
        """Keep a new repository; gives it as it is shown."""
        path = f"{project}/{repository_id}"
        if self.at(path):
            path = f"{path}.{location}"  # the registry has no regions; a repository's own name never has a dot
        self._db.execute("INSERT INTO repositories VALUES (?, ?, ?)", (repository.name, path, ar.Repository.serialize(repository)))
        return self._shown(ar.Repository.serialize(repository), path)

    def keep(self, repository: Any) -> None:
        """Keep a repository that was changed."""
        self._db.execute("UPDATE repositories SET body = ? WHERE name = ?", (ar.Repository.serialize(repository), repository.name))

    async def remove(self, name: str, path: str) -> None:
        """Forget a repository; its images leave the registry."""
        for image in await self.distribution.images(path):
            await self.delete(f"{path}/{image}", [digest for digest, _ in await self.images(name, path, image)])
        self._db.execute("DELETE FROM repositories WHERE name = ?", (name,))

    def _shown(self, body: bytes, path: str) -> Any:
        repository: Any = ar.Repository.deserialize(body)
        repository.registry_uri = f"{self.host}/{path}"
        rows = self._db.execute("SELECT body FROM images WHERE substr(path, 1, ?) = ?", (len(path) + 1, f"{path}/"))
        repository.size_bytes = sum(ar.DockerImage.deserialize(row[0]).image_size_bytes for row in rows)
        return repository

    # images

    async def images(self, repository: str, path: str, image: str, wanted: str = "") -> list[tuple[str, Any]]:
        """The image under each digest that has a tag, had one when last seen, or is wanted; by digest."""
        where = f"{path}/{image}"
        tags: dict[str, list[str]] = {}
        for tag, digest in (await self.distribution.tags(where)).items():
            tags.setdefault(digest, []).append(tag)
        known = self._seen(where)
        digests = sorted({*tags, *known, *([wanted] if wanted else [])})
        gone = await asyncio.gather(*(self._gone(where, digest, tags) for digest in digests))
        found: list[tuple[str, Any]] = []
        for digest, lost in zip(digests, gone, strict=True):
            if not lost:
                seen = await self._remembered(where, digest, sorted(tags.get(digest, [])), known.get(digest))
                seen.name, seen.uri = f"{repository}/dockerImages/{quote(image, safe='')}@{digest}", f"{self.host}/{where}@{digest}"
                found.append((digest, seen))
        return found

    async def changed(self, where: str, reference: str, digest: str) -> None:
        """A manifest was put under a tag or a digest, or (without a digest) deleted: this moment is its upload or its update."""
        known = self._seen(where)
        tag = "" if reference.startswith("sha256:") else reference
        if not digest:
            self._forget(where, [reference])
            return
        if tag:
            for other, image in known.items():
                if other != digest and tag in image.tags:
                    await self._remembered(where, other, [each for each in image.tags if each != tag], image)
        tags = set(known[digest].tags if digest in known else ()) | ({tag} if tag else set())
        await self._remembered(where, digest, sorted(tags), known.get(digest))

    async def delete(self, where: str, digests: Collection[str]) -> None:
        """Delete images with their tags, here and in the registry; indexes first, for they name the others."""
        images = {digest: image for digest, image in self._seen(where).items() if digest in digests}
        for digest in sorted(images, key=lambda each: "index" not in images[each].media_type and "list" not in images[each].media_type):
            await self.distribution.delete(where, digest)
        self._forget(where, digests)

    def _forget(self, where: str, digests: Iterable[str]) -> None:
        self._db.executemany("DELETE FROM images WHERE path = ? AND digest = ?", [(where, digest) for digest in digests])

    async def _gone(self, where: str, digest: str, tags: Mapping[str, list[str]]) -> bool:
        if digest in tags or await self.distribution.digest(where, digest):
            return False
        self._forget(where, [digest])
        return True

    def _seen(self, where: str) -> dict[str, Any]:
        rows = self._db.execute("SELECT digest, body FROM images WHERE path = ?", (where,))
        return {digest: ar.DockerImage.deserialize(body) for digest, body in rows}

    async def _remembered(self, where: str, digest: str, tags: list[str], known: Any | None) -> Any:
        """The image as known, brought up to date: a digest never changes, its tags do."""
        if known is not None and list(known.tags) == tags:
            return known
        now = clock.now()
        if known is None:
            manifest = await self.distribution.manifest(where, digest)
            known = ar.DockerImage(
                image_size_bytes=manifest.size_bytes if manifest else 0,
                media_type=manifest.media_type if manifest else "",
                upload_time=now,
                build_time=manifest.built if manifest else None,
            )
        known.tags = tags
        known.update_time = now
        self._db.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", (where, digest, ar.DockerImage.serialize(known)))
        return known
