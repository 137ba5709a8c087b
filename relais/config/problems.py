"""What is wrong with a file, as values: where, at which key, what, and how to mend it; made from pydantic's errors and from our own."""

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relais.config.scalars import TRUTHS, Wrong, nearest
from relais.errors import BadInput

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    where: str
    key: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.where, self.key, self.what) if part)
        return f"{text} -> {self.remedy}" if self.remedy else text


def bad_input(problems: Sequence[Problem], name: str) -> BadInput:
    """All problems as one error."""
    if len(problems) == 1:
        (only,) = problems
        return BadInput(f"{only.key}: {only.what}" if only.key else only.what, where=only.where, remedy=only.remedy)
    return BadInput("\n  ".join([f"{len(problems)} problems", *map(str, problems)]), where=name, remedy="mend each of them")


def path_text(keys: Iterable[str | int]) -> str:
    """A key path as people write it: verify.http[0].json."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[Keys, str, str]]:
    """Each error as the keys that lead to it, what is wrong, and the remedy."""
    for details in error.errors(include_url=False, include_input=True):
        if details["type"] == "default_factory_not_called":
            continue
        what, remedy, at = _words(details, model)
        keys = tuple(key for key in details["loc"] if key != "[key]")
        while at[:1] == ("..",):
            keys, at = keys[:-1], at[1:]
        yield (*keys, *at), what, remedy


def _words(details: ErrorDetails, model: type[BaseModel]) -> tuple[str, str, Keys]:
    kind, context, loc = details["type"], details.get("ctx", {}), details["loc"]
    last = loc[-1] if loc else ""
    if isinstance(wrong := context.get("error"), Wrong):
        return wrong.what, wrong.remedy, wrong.at
    if kind == "extra_forbidden":
        return "is not a key of this place", nearest(str(last), _known_keys(model, loc[:-1])), ()
    if kind == "missing":
        return "is missing", f"add `{last}: ...`", ()
    if kind == "literal_error":
        words = [word.strip("'").lower() for word in context["expected"].replace(" or ", ", ").split(", ")]
        said = TRUTHS.get(str(details["input"]).lower(), "")
        remedy = f"write {said}" if said in words else nearest(str(details["input"]), words)
        return f"{_kind_of(details['input'], brief=False)} is not known here", remedy, ()
    expected = {
        "string_type": ("must be a text", ""),
        "tuple_type": ("must be a list", "write [..., ...], or one entry a line after -"),
        "model_type": ("must be a mapping", "write key: value below it"),
        "model_attributes_type": ("must be a mapping", "write key: value below it"),
        "mapping_type": ("must be a mapping", "write key: value below it"),
        "dict_type": ("must be a mapping", "write key: value below it"),
        "greater_than_equal": (f"must be at least {context.get('ge')}", ""),
        "greater_than": (f"must be more than {context.get('gt')}", ""),
        "less_than_equal": (f"must be at most {context.get('le')}", ""),
        "less_than": (f"must be less than {context.get('lt')}", ""),
    }
    if kind in expected:
        what, remedy = expected[kind]
        return f"{what}, not {_kind_of(details['input'])}", remedy, ()
    return details["msg"], "", ()


def _kind_of(value: object, *, brief: bool = True) -> str:
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= 60 and text.isprintable() and text.strip() else repr(text[:60])
    return f"the text {text}" if brief and isinstance(value, str) and not re.fullmatch(r"-?[0-9.]+", text) else text


def _known_keys(model: type[BaseModel], loc: Iterable[str | int]) -> list[str]:
    """The keys of the mapping at the end of a path through the models."""
    kind: Any = model
    for key in loc:
        found = _model_in(kind)
        if isinstance(key, str) and found is not None:
            kind = next((field.annotation for name, field in found.model_fields.items() if (field.alias or name) == key), None)
        else:
            kind = _item_of(kind)
    found = _model_in(kind)
    return [] if found is None else [field.alias or name for name, field in found.model_fields.items()]


def _model_in(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    if get_origin(kind) in (Union, types.UnionType):
        return next((found for part in get_args(kind) if (found := _model_in(part))), None)
    return _model_in(kind.__origin__) if hasattr(kind, "__metadata__") else None


def _item_of(kind: Any) -> Any:
    """What a list or a mapping holds."""
    if hasattr(kind, "__metadata__"):
        return _item_of(kind.__origin__)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return next((found for part in args if (found := _item_of(part)) is not None), None)
    if origin is tuple:
        return args[0]
    return args[1] if isinstance(origin, type) and issubclass(origin, Mapping) else None
