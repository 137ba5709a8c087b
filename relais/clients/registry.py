"""Artifact Registry, read: the repository that images go to, and what it holds; and who may push to it.

https://cloud.google.com/artifact-registry/docs/reference/rpc/google.devtools.artifactregistry.v1
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import quote, unquote

import google.auth
from google.api_core.exceptions import NotFound
from google.auth.transport.requests import Request
from google.cloud.artifactregistry_v1 import ArtifactRegistryClient
from google.cloud.artifactregistry_v1 import Repository as _Repository

from relais.clients.endpoint import client_of, reading, translated
from relais.errors import Denied, Missing

_MOST: Final = 5_000  # images that are looked through
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_READER: Final = "roles/artifactregistry.reader"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository for images; an image's name is `registry_uri`, a slash and the image."""

    name: str
    registry_uri: str
    format: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a repository, by digest."""

    name: str  # without the repository
    digest: str
    tags: tuple[str, ...] = ()
    size: int = 0  # bytes, compressed
    uploaded: datetime | None = None


class ArtifactRegistry:
    """One project's repositories in one region; no read takes longer than `within` seconds."""

    def __init__(self, project: str, region: str, within: float = 10.0) -> None:
        self._project, self._region, self._within = project, region, within
        self._client: Any = client_of(ArtifactRegistryClient)

    def repository(self, name: str) -> Repository:
        """The repository, with the address that Docker pushes to; Missing says how to create it."""
        with translated(f"repository {name}", needs=_READER):
            try:
                found = self._client.get_repository(name=self._full(name), **reading(self._within))
            except NotFound:
                raise Missing(
                    f"there is no repository {name} in {self._region}",
                    where=f"Artifact Registry of {self._project}",
                    remedy=f"gcloud artifacts repositories create {name} --repository-format=docker "
                    f"--location={self._region} --project={self._project}",
                ) from None
        kind = _Repository.Format(found.format_).name
        if kind != "DOCKER":
            raise Denied(
                f"the repository {name} is for {kind}, not for Docker images",
                where=f"Artifact Registry of {self._project}",
                remedy="set repository to one of the format docker",
            )
        return Repository(name, found.registry_uri, kind)

    def image_by_tag(self, repository: str, image: str, tag: str) -> Image | None:
        """The image that has this tag now."""
        name = f"{self._full(repository)}/packages/{quote(image, safe='')}/tags/{tag}"
        with translated(f"{image}:{tag}", needs=_READER):
            try:
                found = self._client.get_tag(name=name, **reading(self._within))
            except NotFound:
                return None
        return self.image_by_digest(repository, image, found.version.rpartition("/")[2])

    def image_by_digest(self, repository: str, image: str, digest: str) -> Image | None:
        """The image of this digest."""
        name = f"{self._full(repository)}/dockerImages/{quote(image, safe='')}@{digest}"
        with translated(f"{image}@{digest}", needs=_READER):
            try:
                found = self._client.get_docker_image(name=name, **reading(self._within))
            except NotFound:
                return None
        return _image(found)

    def images(self, repository: str, image: str = "") -> tuple[Image, ...]:
        """The images of a repository, or those of one name, newest first."""
        with translated(f"images in {repository}", needs=_READER):
            found = [one for one in map(_image, self._listed(repository)) if image in ("", one.name)]
        return tuple(sorted(found, key=lambda one: one.uploaded or datetime.min.replace(tzinfo=UTC), reverse=True))

    def _listed(self, repository: str) -> Iterator[Any]:
        request = {"parent": self._full(repository), "page_size": 1000}
        return islice(self._client.list_docker_images(request=request, **reading(self._within)), _MOST)

    def _full(self, repository: str) -> str:
        return f"projects/{self._project}/locations/{self._region}/repositories/{repository}"

    def auth(self, ref: str) -> dict[str, str] | None:
        """What Docker needs to push or pull this reference: a short-lived token for Google's registries, nothing for others.

        https://cloud.google.com/artifact-registry/docs/docker/authentication#token
        """
        if not ref.partition("/")[0].endswith(".pkg.dev"):
            return None
        with translated(ref.partition("/")[0]):
            found = google.auth.default(scopes=[_SCOPE])
            credentials: Any = found[0]
            credentials.refresh(functools.partial(Request(), timeout=10.0))
        return {"username": "oauth2accesstoken", "password": str(credentials.token)}


def _image(found: Any) -> Image:
    name, _, digest = found.name.rpartition("/")[2].partition("@")
    uploaded = datetime.fromtimestamp(found.upload_time.timestamp(), UTC) if found.upload_time else None
    return Image(unquote(name), digest, tuple(found.tags), found.image_size_bytes, uploaded)
