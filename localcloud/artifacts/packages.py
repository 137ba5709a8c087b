"""Packages, versions and tags of Artifact Registry: an image's name, its digests, and what points to them."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote

from google.cloud import artifactregistry_v1 as ar
from google.protobuf import empty_pb2

from localcloud.artifacts.catalog import Catalog
from localcloud.artifacts.distribution import RegistryDown
from localcloud.operations import Job, Work
from localcloud.pages import page
from localcloud.wire import Code, Context, Refusal

_Empty: Final[Any] = empty_pb2.Empty  # type: ignore[attr-defined]  # generated modules have no types
REPOSITORY: Final = r"projects/[^/]+/locations/[^/]+/repositories/[^/]+"
_REPOSITORY: Final = re.compile(REPOSITORY)
_PACKAGE: Final = re.compile(rf"({REPOSITORY})/packages/([^/]+)")
_TAG: Final = re.compile(rf"({REPOSITORY}/packages/[^/]+)/tags/([^/]+)")
_VERSION: Final = re.compile(rf"({REPOSITORY}/packages/[^/]+)/versions/(sha256:[0-9a-f]{{64}})")
_TAG_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_TAG_FILTER: Final = re.compile(r'\s*(?:version|name)\s*=\s*"([^"]+)"\s*')
_MISSING: Final = "Requested entity was not found."
_KINDS: Final = ("create-repository", "delete-repository", "delete-images")
_AT_ONCE: Final = 50  # [BatchDeleteVersionsRequest]: at most 10000; here the registry is asked one by one


class Starter(Protocol):
    """What starts long-running operations (`localcloud.operations.Operations`)."""

    def start(self, parent: str, metadata_pb: Any, work: Work, *, resume: str) -> Any: ...


class Packages:
    """The ArtifactRegistry methods on packages, versions and tags."""

    def __init__(self, catalog: Catalog, operations: Starter) -> None:
        self._catalog = catalog
        self._operations = operations

    # operations: each is kept with a line that says what it does, so that a restart can do it again

    def again(self, line: str) -> Job | None:
        """The work that a line names; None if it names none of these."""
        kind, _, what = line.partition(" ")
        return Job(self._work(kind, what)) if kind in _KINDS else None

    def _begin(self, name: str, kind: str, what: str) -> Any:
        parent = name.partition("/repositories/")[0]
        return self._operations.start(parent, ar.OperationMetadata(), self._work(kind, what), resume=f"{kind} {what}")

    async def _work(self, kind: str, what: str) -> Any:
        if kind == "create-repository":
            return self._repository(what)[0]
        with reachable():
            if kind == "delete-repository" and (found := self._catalog.repository(what)) is not None:
                await self._catalog.remove(what, found[1])
            for images in what.split() if kind == "delete-images" else ():
                where, _, digests = images.partition("@")
                await self._catalog.delete(where, digests.split(","))
        return _Empty()

    # packages

    async def ListPackages(self, request: Any, _: Context) -> Any:
        repository, path = self._repository(request.parent)
        refuse_if(bool(request.filter), "filter is not served for packages here: leave it empty.")
        with reachable():
            names = await self._catalog.distribution.images(path)
            packages = [await self._package(repository.name, path, name) for name in names]
        chosen = ordered([each for each in packages if each], request.order_by, ("name", "create_time", "update_time"))
        found, token = page(chosen, request.page_size, request.page_token)
        return ar.ListPackagesResponse(packages=found, next_page_token=token)

    async def GetPackage(self, request: Any, _: Context) -> Any:
        repository, path, image = self._placed(request.name)
        with reachable():
            found = await self._package(repository, path, image)
        return only([found] if found else [])

    async def DeletePackage(self, request: Any, _: Context) -> Any:
        repository, path, image = self._placed(request.name)
        versions = await self._versions(request.name)
        only(versions)
        return self._begin(repository, "delete-images", f"{path}/{image}@{','.join(digest for digest, _ in versions)}")

    async def _package(self, repository: str, path: str, image: str) -> Any | None:
        """[approximated] Its times are those of its images."""
        images = [each for _, each in await self._catalog.images(repository, path, image)]
        if not images:
            return None
        return ar.Package(
            name=f"{repository}/packages/{quote(image, safe='')}",
            create_time=min(each.upload_time for each in images),
            update_time=max(each.update_time for each in images),
        )

    # versions

    async def ListVersions(self, request: Any, _: Context) -> Any:
        refuse_if(bool(request.filter), "filter is not served for versions here: leave it empty.")
        full = request.view == ar.VersionView.FULL
        versions = [_version(request.parent, *each, full=full) for each in await self._versions(request.parent)]
        chosen = ordered(versions, request.order_by, ("name", "create_time", "update_time"))
        found, token = page(chosen, request.page_size, request.page_token)
        return ar.ListVersionsResponse(versions=found, next_page_token=token)

    async def GetVersion(self, request: Any, _: Context) -> Any:
        package, digest = parsed(_VERSION, request.name, "name", "REPOSITORY/packages/PACKAGE/versions/sha256:DIGEST")
        _digest, image = only([each for each in await self._versions(package, digest) if each[0] == digest])
        return _version(package, digest, image, full=request.view == ar.VersionView.FULL)

    async def DeleteVersion(self, request: Any, _: Context) -> Any:
        return await self._delete_versions([request.name], force=request.force)

    async def BatchDeleteVersions(self, request: Any, _: Context) -> Any:
        refuse_if(not 0 < len(request.names) <= _AT_ONCE, f"names has {len(request.names)} versions; here 1 to {_AT_ONCE} go at once.")
        return await self._delete_versions(list(request.names), force=True, validate_only=request.validate_only)

    async def _delete_versions(self, names: list[str], *, force: bool, validate_only: bool = False) -> Any:
        wanted: dict[str, list[str]] = {}
        for name in names:
            package, digest = parsed(_VERSION, name, "name", "REPOSITORY/packages/PACKAGE/versions/sha256:DIGEST")
            _digest, image = only([each for each in await self._versions(package, digest) if each[0] == digest])
            if image.tags and not force:  # [approximated]
                tags = ", ".join(image.tags)
                text = f"cannot delete version {digest} because it is tagged: {tags}. Delete the tags first, or use force."
                raise Refusal(Code.FAILED_PRECONDITION, text)
            _repository, path, of = self._placed(package)
            wanted.setdefault(f"{path}/{of}", []).append(digest)
        images = [] if validate_only else [f"{where}@{','.join(digests)}" for where, digests in wanted.items()]
        return self._begin(names[0], "delete-images", " ".join(images))

    async def _versions(self, package: str, wanted: str = "") -> list[tuple[str, Any]]:
        repository, path, image = self._placed(package)
        with reachable():
            return await self._catalog.images(repository, path, image, wanted)

    # tags

    async def ListTags(self, request: Any, _: Context) -> Any:
        wanted = _TAG_FILTER.fullmatch(request.filter)
        refuse_if(bool(request.filter) and not wanted, f'filter is {request.filter!r}; it must be version="VERSION" or name="TAG".')
        tags = await self._tags(request.parent)
        if wanted:
            tags = [tag for tag in tags if wanted[1] in {tag.version, tag.name}]
        found, token = page(tags, request.page_size, request.page_token)
        return ar.ListTagsResponse(tags=found, next_page_token=token)

    async def GetTag(self, request: Any, _: Context) -> Any:
        package, _name = parsed(_TAG, request.name, "name", "REPOSITORY/packages/PACKAGE/tags/TAG")
        return only([tag for tag in await self._tags(package) if tag.name == request.name])

    async def CreateTag(self, request: Any, _: Context) -> Any:
        refuse_if(not _TAG_ID.fullmatch(request.tag_id), f"tag_id is {request.tag_id!r}; it must be a tag as Docker knows them.")
        name = f"{request.parent}/tags/{request.tag_id}"
        if any(tag.name == name for tag in await self._tags(request.parent)):
            raise Refusal(Code.ALREADY_EXISTS, "tag already exists")  # [approximated]
        return await self._point(request.parent, request.tag_id, request.tag.version)

    async def UpdateTag(self, request: Any, _: Context) -> Any:
        package, tag = parsed(_TAG, request.tag.name, "tag.name", "REPOSITORY/packages/PACKAGE/tags/TAG")
        refuse_if(list(request.update_mask.paths) not in ([], ["version"], ["*"]), "update_mask must be version.")
        only([each for each in await self._tags(package) if each.name == request.tag.name])
        return await self._point(package, tag, request.tag.version)

    async def DeleteTag(self, request: Any, _: Context) -> Any:
        package, tag = parsed(_TAG, request.name, "name", "REPOSITORY/packages/PACKAGE/tags/TAG")
        only([each for each in await self._tags(package) if each.name == request.name])
        repository, path, image = self._placed(package)
        with reachable():
            await self._catalog.images(repository, path, image)  # so that the image is known when its last tag is gone
            await self._catalog.distribution.untag(f"{path}/{image}", tag)
        return _Empty()

    async def _point(self, package: str, tag: str, version: str) -> Any:
        of, digest = parsed(_VERSION, version, "tag.version", "REPOSITORY/packages/PACKAGE/versions/sha256:DIGEST")
        refuse_if(of != package, f"tag.version is {version!r}, which is not of {package}.")
        only([each for each in await self._versions(package, digest) if each[0] == digest])
        _repository, path, image = self._placed(package)
        with reachable():
            await self._catalog.distribution.tag(f"{path}/{image}", digest, tag)
            await self._catalog.changed(f"{path}/{image}", tag, digest)
        return ar.Tag(name=f"{package}/tags/{tag}", version=version)

    async def _tags(self, package: str) -> list[Any]:
        _repository, path, image = self._placed(package)
        with reachable():
            tags = await self._catalog.distribution.tags(f"{path}/{image}")
        return [ar.Tag(name=f"{package}/tags/{tag}", version=f"{package}/versions/{digest}") for tag, digest in sorted(tags.items())]

    # where things are

    def _placed(self, package: str) -> tuple[str, str, str]:
        """The package's repository, the path of that in the registry, and the image's name."""
        parent, image = parsed(_PACKAGE, package, "package", "REPOSITORY/packages/PACKAGE")
        return parent, self._repository(parent)[1], unquote(image)

    def _repository(self, name: str) -> tuple[Any, str]:
        parsed(_REPOSITORY, name, "repository", "projects/PROJECT/locations/LOCATION/repositories/REPOSITORY")
        found = self._catalog.repository(name)
        if found is None:
            raise Refusal(Code.NOT_FOUND, _MISSING)
        return found


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """A registry that does not answer is UNAVAILABLE to the client."""
    try:
        yield
    except RegistryDown as error:
        raise Refusal(Code.UNAVAILABLE, str(error)) from error


def parsed(pattern: re.Pattern[str], text: str, what: str, shape: str) -> Sequence[str]:
    """The parts of a resource's name; INVALID_ARGUMENT if it is none."""
    found = pattern.fullmatch(text)
    if found is None:
        raise Refusal(Code.INVALID_ARGUMENT, f"Invalid {what}: {text!r}. It must be {shape}.")
    return found.groups()


def refuse_if(wrong: bool, message: str) -> None:
    """INVALID_ARGUMENT with this message if it is so."""
    if wrong:
        raise Refusal(Code.INVALID_ARGUMENT, message)


def only(found: list[Any]) -> Any:
    """The first of what was found; NOT_FOUND if nothing was."""
    if not found:
        raise Refusal(Code.NOT_FOUND, _MISSING)
    return found[0]


def ordered(found: list[Any], order_by: str, fields: Sequence[str]) -> list[Any]:
    """By one of these fields, upwards or downwards; as they are if no order is asked for."""
    words = order_by.split()
    if not words:
        return found
    known = words[0] in fields and words[1:] in ([], ["asc"], ["desc"])
    refuse_if(not known, f"order_by is {order_by!r}; it must be {' or '.join(fields)}, and asc or desc.")
    return sorted(found, key=lambda each: getattr(each, words[0]), reverse=words[1:] == ["desc"])


def _version(package: str, digest: str, image: Any, *, full: bool) -> Any:
    metadata = {"name": image.name, "imageSizeBytes": str(image.image_size_bytes), "mediaType": image.media_type}
    if image.build_time is not None:
        metadata["buildTime"] = image.build_time.rfc3339()
    name = f"{package}/versions/{digest}"
    version = ar.Version(name=name, create_time=image.upload_time, update_time=image.update_time, metadata=metadata)
    if full:
        version.related_tags = [ar.Tag(name=f"{package}/tags/{tag}", version=version.name) for tag in image.tags]
    return version
