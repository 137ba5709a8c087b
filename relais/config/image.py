"""How the image is built, and how it gets to the registry."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from relais.config.scalars import ByteSize, EnvName, Line, RepoPath, Size, Wrong, formed
from relais.config.section import Patterns, Section, TimeLimit


class SizeLimits(Section):
    """How large the image may be."""

    warn: ByteSize | None = None
    """From here on it is said, with the largest layers."""
    fail: ByteSize | None = None
    """From here on the release is refused."""

    @field_validator("fail")
    @classmethod
    def _order(cls, fail: Size | None, info: ValidationInfo) -> Size | None:
        if fail and (warn := info.data.get("warn")) and warn > fail:
            raise Wrong(f"{fail} is less than warn, {warn}", "write a fail that is at least warn")
        return fail


def _within(value: str) -> str:
    if value.startswith("/") or ".." in value.split("/") or not value:
        raise Wrong(f"{value or 'nothing'} is not a directory inside the repository", "write a relative path without ..")
    return value


SecretId = Annotated[str, formed(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "a build secret's id", "write letters, digits, _, . and -")]


class Build(Section):
    """How the image is built."""

    context: Annotated[str, AfterValidator(_within)] = "."
    """The directory that the builder gets."""
    dockerfile: RepoPath = "Dockerfile"
    """The Dockerfile, from the repository's root."""
    platform: Annotated[str, formed(r"linux/amd64", "a platform of Cloud Run", "write linux/amd64")] = "linux/amd64"
    """The platform, verified on the result."""
    args: Mapping[EnvName, str] = {}
    """Build arguments."""
    target: Line | None = None
    """The stage to build; otherwise the last."""
    secrets: Mapping[SecretId, Line] = Field(default_factory=dict)
    """Build secrets: id, and the Prefect Secret block that holds it."""
    expect: Patterns = ()
    """Texts in the log, or in the layers that came from the cache."""
    size: SizeLimits = SizeLimits()
    """How large the image may be."""
    timeout: TimeLimit = timedelta(minutes=20)
    """The longest that the build may take."""


class Push(Section):
    """How the image gets to the registry."""

    timeout: TimeLimit = timedelta(minutes=15)
    """The longest that the push may take."""
