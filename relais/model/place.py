"""What is released, and from where: service, commit, repository, release file."""

from typing import Any

from pydantic import Field

from relais.config import ReleaseFile
from relais.model.values import Finding, Value


class ServiceName(Value):
    """A Cloud Run service: project, region and short name."""

    project: str = Field(title="Project", description="The id of the Google Cloud project.")
    region: str = Field(title="Region", description="Such as europe-west1.")
    name: str = Field(title="Service", description="The service's short name.")

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def full(self) -> str:
        return f"{self.parent}/services/{self.name}"

    def __str__(self) -> str:
        return f"{self.name} ({self.project}, {self.region})"


class Commit(Value):
    """One commit: full hash and first line."""

    sha: str
    subject: str = ""
    author: str = ""
    date: str = ""  # ISO 8601

    @property
    def short(self) -> str:
        return self.sha[:7]

    def __str__(self) -> str:
        return f"{self.short} {self.subject}".strip()


class Source(Value):
    """The team's repository as it is released: where it lies on this machine, and what Git says about it."""

    root: str
    url: str = ""  # where it was cloned from, when `app` is a URL (without credentials)
    branch: str = ""
    commit: Commit
    previous: Commit | None = None  # the commit that serves, where its revision names one
    log: tuple[Commit, ...] = ()  # the last ten
    since: tuple[Commit, ...] = ()  # between what serves and this commit, newest first
    findings: tuple[Finding, ...] = ()


class App(Value):
    """What is released, opened: the release file with the run's changes, and the directory it lies in."""

    root: str
    url: str = ""  # where it was cloned from, when `app` is a URL (without credentials)
    ref: str = "HEAD"
    release: dict[str, Any]  # `App.file`, as data

    @property
    def file(self) -> ReleaseFile:
        return ReleaseFile.model_validate(self.release)

    @property
    def service(self) -> ServiceName:
        file = self.file
        return ServiceName(project=file.project, region=file.region, name=file.service)


class Text(Value):
    """A document that whoever releases must have before their eyes, or the part of it that matters."""

    path: str
    part: str = ""  # the section, or "last 3 entries"
    excerpt: str = ""
