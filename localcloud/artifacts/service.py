"""Artifact Registry over a real Docker registry: its repositories and the images in them.

https://cloud.google.com/artifact-registry/docs/reference/rpc/google.devtools.artifactregistry.v1
"""

import re
from typing import Any, Final
from urllib.parse import unquote

from google.cloud import artifactregistry_v1 as ar
from google.protobuf import empty_pb2

from localcloud import clock
from localcloud.artifacts.packages import REPOSITORY, Packages, only, ordered, parsed, reachable, refuse_if
from localcloud.pages import page
from localcloud.wire import Code, Context, Refusal

_Empty: Final[Any] = empty_pb2.Empty  # type: ignore[attr-defined]  # generated modules have no types
_LOCATION: Final = re.compile(r"projects/([^/]+)/locations/([^/]+)")
_IMAGE: Final = re.compile(rf"({REPOSITORY})/dockerImages/([^/@]+)@(sha256:[0-9a-f]{{64}})")
_REPOSITORY_ID: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}")
_CHANGEABLE: Final = ("description", "labels")
_UNSERVED: Final = (
    "maven_config", "virtual_repository_config", "remote_repository_config", "kms_key_name", "cleanup_policies", "cleanup_policy_dry_run",
    "vulnerability_scanning_config",
)  # fmt: skip


class Artifacts(Packages):
    """The ArtifactRegistry service; used on the event loop's thread only."""

    async def close(self) -> None:
        """Let go of the registry."""
        await self._catalog.distribution.close()

    # repositories

    async def GetRepository(self, request: Any, _: Context) -> Any:
        return self._repository(request.name)[0]

    async def ListRepositories(self, request: Any, _: Context) -> Any:
        parsed(_LOCATION, request.parent, "parent", "projects/PROJECT/locations/LOCATION")
        refuse_if(bool(request.filter), "filter is not served for repositories here: leave it empty.")
        repositories = ordered(self._catalog.repositories(request.parent), request.order_by, ("name", "create_time", "update_time"))
        found, token = page(repositories, request.page_size, request.page_token)
        return ar.ListRepositoriesResponse(repositories=found, next_page_token=token)

    async def CreateRepository(self, request: Any, _: Context) -> Any:
        project, location = parsed(_LOCATION, request.parent, "parent", "projects/PROJECT/locations/LOCATION")
        name = f"{request.parent}/repositories/{request.repository_id}"
        refuse_if(
            not _REPOSITORY_ID.fullmatch(request.repository_id),
            f"repository_id is {request.repository_id!r}; it must be 1 to 63 lower case letters, digits and hyphens, begin with a letter "
            "and not end with a hyphen.",
        )
        formats = ar.Repository.Format
        refuse_if(request.repository.format_ != formats.DOCKER, "The local cloud only keeps repositories of the format DOCKER: set it.")
        _check(request.repository)
        if self._catalog.repository(name):
            raise Refusal(Code.ALREADY_EXISTS, "the repository already exists")
        now = clock.now()
        wanted: Any = ar.Repository(
            name=name, format_=formats.DOCKER, mode=ar.Repository.Mode.STANDARD_REPOSITORY, description=request.repository.description,
            labels=request.repository.labels, create_time=now, update_time=now,
        )  # fmt: skip
        with self._catalog.transaction():
            self._catalog.add(wanted, project, request.repository_id, location)
            return self._begin(name, "create-repository", name)

    async def UpdateRepository(self, request: Any, _: Context) -> Any:
        kept, _path = self._repository(request.repository.name)
        paths = list(request.update_mask.paths) or list(_CHANGEABLE)
        if paths == ["*"]:
            paths = list(_CHANGEABLE)
        for path in paths:
            refuse_if(path not in _CHANGEABLE, f"update_mask has {path!r}; here only {' and '.join(_CHANGEABLE)} can be changed.")
        _check(request.repository)
        for path in paths:
            setattr(kept, path, getattr(request.repository, path))
        kept.update_time = clock.now()
        self._catalog.keep(kept)
        return kept

    async def DeleteRepository(self, request: Any, _: Context) -> Any:
        self._repository(request.name)
        return self._begin(request.name, "delete-repository", request.name)

    # images

    async def ListDockerImages(self, request: Any, _: Context) -> Any:
        repository, path = self._repository(request.parent)
        with reachable():
            names = await self._catalog.distribution.images(path)
            images = [image for name in names for _, image in await self._catalog.images(repository.name, path, name)]
        chosen = ordered(images, request.order_by, ("name", "upload_time", "update_time"))
        found, token = page(chosen, request.page_size, request.page_token)
        return ar.ListDockerImagesResponse(docker_images=found, next_page_token=token)

    async def GetDockerImage(self, request: Any, _: Context) -> Any:
        parent, image, digest = parsed(_IMAGE, request.name, "name", "REPOSITORY/dockerImages/IMAGE@sha256:DIGEST")
        repository, path = self._repository(parent)
        with reachable():
            found = await self._catalog.images(repository.name, path, unquote(image), digest)
        return only([each for has, each in found if has == digest])


def _check(repository: Any) -> None:
    """Refuse what would have no effect here, and labels that the real one refuses [approximated texts]."""
    for field in _UNSERVED:
        refuse_if(field in repository and bool(getattr(repository, field)), f"repository.{field} is not served here: leave it out.")
    refuse_if(repository.docker_config.immutable_tags, "repository.docker_config.immutable_tags is not served here: leave it out.")
    refuse_if(len(repository.labels) > 64, "repository.labels has more than 64 labels.")
    for key, value in repository.labels.items():
        fits = _LABEL.fullmatch(f"{key}={value}") is not None
        refuse_if(not fits, f"repository.labels has {key!r}={value!r}; use lower case letters, digits, '_' and '-', at most 63 each.")
