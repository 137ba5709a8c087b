"""The release file as one frozen value, and what one run changes over it."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from relais.config.canary import Canary
from relais.config.changes import Changes
from relais.config.contract import Validation, Verify
from relais.config.deploy import Deploy, Hooks
from relais.config.image import Build, Push
from relais.config.preflight import Preflight, known_check
from relais.config.problems import Problem, bad_input, explain, path_text
from relais.config.release import Release
from relais.config.scalars import Line, RepoPath, Wrong, Zone, fill, formed, template, unquoted
from relais.config.section import FACTS, SAMPLE, TAG, OrElse, Section
from relais.errors import BadInput

BUILD_TAG = "build_tag.txt"
"""Where a release leaves the image's tag, for the team's other tools."""


class DocumentCommit(Section):
    """How the documents are committed."""

    author: Annotated[str, formed(r"[^<>\n]+ <[^<>\s]+>", "an author", "write Name <address>")] | None = None
    """Who the commit is by; otherwise Git's user."""
    message: Annotated[str, template(*FACTS)] = "Release {revision}: documents"
    """The commit's message."""


def _committed(value: object) -> object:
    value = unquoted(value)
    return None if value is False else {} if value is True else value


class SyncPage(Section):
    """A named section of a page that is kept up to date."""

    path: RepoPath
    """The page."""
    section: Line
    """The heading of the section."""


class Documents(Section):
    """What is written into the service's repository; nothing that is not named here."""

    language: Literal["en", "fr"] = "en"
    """The documents' language."""
    timezone: Zone = "UTC"
    """The one clock for tag, file names and texts."""
    report: Annotated[RepoPath, template(*FACTS[:-3])] | None = None
    """The deployment report's file, one a release."""
    index: RepoPath | None = None
    """The list of releases, newest first."""
    sync: SyncPage | None = None
    """The page on which people tell each other where they are."""
    journal: RepoPath | None = None
    """The journal that gets an entry."""
    commit: Annotated[DocumentCommit | None, BeforeValidator(_committed), OrElse({"type": "boolean"})] = DocumentCommit()
    """Whether they are committed: true, false, or {author, message}."""
    push: Annotated[Literal["auto", True, False], BeforeValidator(unquoted)] = "auto"
    """Whether that commit is pushed; auto: when preflight.git.pushed is demanded."""


class Escalate(Section):
    """Who is told when a release is blocked."""

    contact: Line | None = None
    """Whom the journal and the notification name."""
    notify: tuple[Line, ...] = ()
    """Names of Prefect notification blocks."""


ServiceName = Annotated[
    str, formed(r"[a-z]([a-z0-9-]{0,47}[a-z0-9])?", "a service's name", "write up to 49 lower-case letters, digits and -, a letter first")
]
ProjectId = Annotated[
    str, formed(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project's id", "write the id (6 to 30 of a-z, 0-9, -), not its name")
]
Region = Annotated[str, formed(r"[a-z]+-[a-z]+[0-9]+", "a region", "write one such as europe-west1")]
RepositoryId = Annotated[
    str, formed(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "a repository's id", "write the Artifact Registry id alone, such as app")
]


def _off(value: object) -> object:
    return None if unquoted(value) is False else value


class ReleaseFile(Section):
    """How one service gets from a commit to production."""

    service: ServiceName
    """The Cloud Run service."""
    project: ProjectId
    """The Google Cloud project's id."""
    region: Region
    """The Cloud Run region."""
    repository: RepositoryId
    """The Artifact Registry repository; the image is REGISTRY_URI/SERVICE."""
    release: Release = Release()
    """What changes from one release to the next."""
    preflight: Preflight = Preflight()
    """What is looked at before anything changes."""
    build: Annotated[Build | None, BeforeValidator(_off), OrElse({"const": False})] = Build()
    """How the image is built; false releases an image that exists."""
    push: Push = Push()
    """How the image gets to the registry."""
    deploy: Deploy = Deploy()
    """The revision."""
    hooks: Hooks = Hooks()
    """Commands at four places of a release."""
    verify: Verify = Verify()
    """The contract that is checked at 0 %."""
    canary: Canary | None = None
    """The way to 100 %; without it, at once."""
    validation: Validation = Field(default=Validation(), alias="validate")
    """What is checked on the production URL."""
    documents: Documents = Documents()
    """What is written into the service's repository."""
    escalate: Escalate = Escalate()
    """Who is told when a release is blocked."""

    @field_validator("preflight")
    @classmethod
    def _skips_exist(cls, preflight: Preflight, info: ValidationInfo) -> Preflight:
        if release := info.data.get("release"):
            for index, name in enumerate(release.skip):
                known_check(name, preflight.checks, ("..", "release", "skip", index))
        return preflight

    @field_validator("deploy")
    @classmethod
    def _deploy_fits(cls, deploy: Deploy, info: ValidationInfo) -> Deploy:
        service, release = info.data.get("service"), info.data.get("release")
        if service and release:
            known = {**SAMPLE, "service": service, "slug": release.slug or SAMPLE["slug"]}
            _revision(service, fill(deploy.revision_suffix, known), shown=deploy.revision_suffix)
        if deploy.image and info.data.get("build"):
            raise Wrong("needs build: false", "write build: false, or remove image", at=("image",))
        return deploy

    def with_changes(self, changes: Changes) -> "ReleaseFile":
        """The file with what one run changes over it."""
        given = {key: value for key, value in changes.model_dump().items() if value}
        data = self.model_dump(mode="json")
        data["release"] |= {key: given[key] for key in given if key in Release.model_fields}
        if changes.changes:
            data["release"]["changes"] = _nested(changes.changes)
        if "commits" in given:
            data["preflight"]["git"]["commits"] = given["commits"]
        if "watch" in given:
            data["validate"]["watch"] = given["watch"]
        for key in ("bake", "deadline"):
            if key in given and self.canary is None:
                remedy = f"leave {key} out, or write canary in the file"
                raise BadInput(f"{key}: this release has no canary", where="run parameters", remedy=remedy)
            if key in given:
                data["canary"][key] = given[key]
        try:
            return ReleaseFile.model_validate(data)
        except ValidationError as error:
            problems = [Problem("run parameters", _parameter(keys), what, remedy) for keys, what, remedy in explain(error, ReleaseFile)]
            raise bad_input(problems, "run parameters") from None

    @property
    def written_by_releases(self) -> tuple[str, ...]:
        """The files, as globs, that a release writes into the tree itself: they make no new image, and no tree unclean."""
        wanted = self.documents
        reports = [f"{parent}/*" if (parent := wanted.report.rpartition("/")[0]) else "*.md"] if wanted.report else []
        sync = [wanted.sync.path] if wanted.sync else []
        return (BUILD_TAG, *reports, *sync, *(path for path in (wanted.index, wanted.journal) if path))

    def image_tag(self, facts: Mapping[str, str]) -> str:
        """The image's tag, from the facts that NAMES lists."""
        tag = fill(self.release.tag, facts)
        if not re.fullmatch(TAG, tag):
            raise BadInput(f"{tag} is no image tag", where="release.tag", remedy="write up to 128 letters, digits, _, . and -")
        return tag

    def revision(self, facts: Mapping[str, str]) -> str:
        """The revision's name, from the facts that NAMES lists."""
        try:
            return _revision(self.service, fill(self.deploy.revision_suffix, facts))
        except Wrong as wrong:
            raise BadInput(wrong.what, where="deploy.revision_suffix", remedy=wrong.remedy) from None


def _nested(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Entries, and their parts: the lines that begin with '- '."""
    entries: list[dict[str, Any]] = []
    for line in lines:
        if line.startswith("- ") and entries:
            entries[-1]["items"].append(line.removeprefix("- "))
        else:
            entries.append({"title": line.removeprefix("- "), "items": []})
    return entries


def _parameter(keys: tuple[str | int, ...]) -> str:
    """The run parameter that a key path of the file stands for."""
    return {"preflight": "commits", "validate": "watch", "deploy": "slug"}.get(str(keys[0])) or path_text(keys[1:])


def _revision(service: str, suffix: str, *, shown: str = "") -> str:
    name = f"{service}-{suffix}"
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", suffix):
        raise Wrong(f"{shown or suffix} makes no revision name", "write lower-case letters, digits and -", at=("revision_suffix",))
    if len(name) > 63:
        raise Wrong(f"{name} is longer than 63 characters", f"shorten it by {len(name) - 63}", at=("revision_suffix",))
    return name


class _Schema(GenerateJsonSchema):
    """A key is given or left out: null is no value of a release file."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        return {key: value for key, value in found.items() if key != "default" or not (value is None or isinstance(value, dict))}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a release file, for editors."""
    return {"$schema": _Schema.schema_dialect, **ReleaseFile.model_json_schema(schema_generator=_Schema)}
