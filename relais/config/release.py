"""What changes from one release to the next."""

import re
import unicodedata
from typing import Annotated, ClassVar

from pydantic import field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue

from relais.config.scalars import Commit, Line, Wrong, fill, formed, template
from relais.config.section import NAMES, SAMPLE, TAG, TEXT_FORM, Section, one


class Change(Section):
    """One entry of what changes, with its parts."""

    short: ClassVar[JsonSchemaValue | None] = {
        "anyOf": [TEXT_FORM, {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "array", "items": TEXT_FORM}}]
    }

    title: Line
    """What changes."""
    items: tuple[Line, ...] = ()
    """The parts of it."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        if isinstance(data, str):
            return {"title": data}
        if isinstance(data, dict) and "title" not in data:
            if len(data) != 1:
                raise Wrong("is not one title with its items", "write `- title: [item, item]`, each title as its own entry")
            ((title, items),) = data.items()
            return {"title": title, "items": one(items)}
        return data


def slug_of(text: str) -> str:
    """A slug made from a text, at most 40 characters long; empty where the text has no letter and no digit."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-")


Slug = Annotated[str, formed(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", "a slug", "write up to 40 lower-case letters, digits and -")]


class Release(Section):
    """What changes from one release to the next; each key is also a run parameter."""

    title: Line | None = None
    """What this release is, in one line; otherwise made from the commits."""
    slug: Slug | None = None
    """The release's short name, in file names and in the revision."""
    tag: Annotated[str, template(*NAMES)] = "deploy-{short_commit}-{timestamp}"
    """The image's tag, made once when the run starts."""
    by: Line | None = None
    """Who releases, as every document names them; otherwise RELAIS_BY, or the user of the worker."""
    commit: Commit | None = None
    """The commit that the documents name beside the one that is built."""
    changes: tuple[Change, ...] = ()
    """What changes, nested, as in the report; otherwise made from the commits."""
    next: tuple[Line, ...] = ()
    """The next steps, as the documents name them."""
    skip: tuple[Line, ...] = ()
    """Checks to skip, by name: recorded as skipped, and by whom."""
    skipped_by: Line | None = None
    """Who skips them; otherwise who releases."""

    @field_validator("tag")
    @classmethod
    def _tag(cls, value: str) -> str:
        if not re.fullmatch(TAG, fill(value, SAMPLE)):
            raise Wrong(f"{value} makes no image tag", "write up to 128 letters, digits, _, . and -, not beginning with . or -")
        return value
