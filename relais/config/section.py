"""What all sections of the release file share."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from relais.config.scalars import Duration, EnvName, Line, Pattern, Wrong, between


class Section(BaseModel):
    """A mapping of the release file: frozen, and every key is known."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True, allow_inf_nan=False, hide_input_in_errors=True
    )
    short: ClassVar[JsonSchemaValue | None] = None
    """The short form in which the mapping may be written, for the JSON Schema."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        if cls.short:
            either = handler.resolve_ref_schema(found)
            whole = dict(either)
            either.clear()
            either.update({"title": cls.__name__, "anyOf": [cls.short, whole]})
        return found


def short_form(key: str) -> Any:
    """A validator: a plain text stands for a mapping with this key."""
    return model_validator(mode="before")(lambda data: {key: data} if isinstance(data, str) else data)


def one(value: object) -> object:
    """One entry where a list may be."""
    return [value] if isinstance(value, (str, int, dict)) else value


def _filled(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise Wrong("is an empty list", "add an entry, or remove the key")
    return items


FILLED = AfterValidator(_filled)


def distinct(key: Callable[[Any], str], what: str) -> AfterValidator:
    def check(items: tuple[Any, ...]) -> tuple[Any, ...]:
        seen: set[str] = set()
        for index, item in enumerate(items):
            if key(item) in seen:
                raise Wrong(f"{what} {key(item)} is there twice", "give each its own name", at=(index,))
            seen.add(key(item))
        return items

    return AfterValidator(check)


def named(item: Any) -> str:
    return str(item.name)


TEXT_FORM: JsonSchemaValue = {"type": "string"}


class _Many:
    """A list, or its only entry."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(one, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        return {"anyOf": [found["items"], found]}


MANY = _Many()


class OrElse:
    """Another form in which a value may be written, for the JSON Schema."""

    def __init__(self, other: JsonSchemaValue) -> None:
        self.other = other

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        return {"anyOf": [self.other, found]}


Patterns = Annotated[tuple[Pattern, ...], MANY]
Secrets = Mapping[EnvName, Line]
TimeLimit = Annotated[Duration, between("1s", "24h")]

NAMES = ("timestamp", "date", "slug", "service", "commit", "short_commit")
"""The placeholders that are known when a release begins."""
FACTS = (*NAMES, "tag", "revision", "project", "region", "image", "digest", "url")
"""The placeholders that are known when a revision is there."""
SAMPLE = {
    "timestamp": "20251031-142530",
    "date": "2025-10-31",
    "slug": "slug",
    "service": "service",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "short_commit": "0123456",
}


TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
