"""Reads what somebody wrote as JSON into a frozen dataclass, and says in a sentence what is wrong with it and what would be right."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import grpc

T = TypeVar("T")
_SHORT = 60


class Unusable(Exception):
    """What was asked cannot be done: what is wrong, where, and what would be right."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(f"{where}: {what} {remedy}")
        self.what, self.where, self.remedy = what, where, remedy


def field(default: Any = dataclasses.MISSING, *, least: float | None = None, most: float | None = None) -> Any:
    """A field of a form that is a number between two bounds."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


def read(kind: type[T], given: Any, where: str) -> T:
    """Make a value of this dataclass; a key that it does not have, a missing one and a wrong value are Unusable."""
    if not isinstance(given, dict):
        raise Unusable(f"{_shown(given)} is not a JSON object.", where, f"Send an object with {_listed(fields(kind))}.")
    known = fields(kind)
    for key in given:
        if key not in known:
            raise Unusable(f"There is no '{key[:_SHORT]}' here.", where, _instead(key, known))
    missing = [name for name, each in known.items() if _required(each) and name not in given]
    if missing:
        raise Unusable(f"'{missing[0]}' is missing.", where, f"It takes {_expected(known[missing[0]], _type(kind, missing[0]))}.")
    return kind(**{key: _value(known[key], _type(kind, key), value, f"{where}: {key}") for key, value in given.items()})


def changed(before: T, given: Any, where: str) -> T:
    """The same value with what is given instead; objects inside are changed key by key."""
    return read(type(before), _merged(plain(before), given), where)


def plain(value: Any) -> Any:
    """A value as JSON shows it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return value.name if isinstance(value, grpc.StatusCode) else value


def fields(kind: type) -> "dict[str, dataclasses.Field[Any]]":
    """The fields of a form by name."""
    return {each.name: each for each in dataclasses.fields(kind) if each.init}


def nearest(wrong: str, known: Iterable[str]) -> str:
    """A remedy for a word that is not known: the one that was probably meant, else all of them."""
    return _instead(wrong, known)


def _required(each: "dataclasses.Field[Any]") -> bool:
    return each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING


def _merged(before: Any, given: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(given, dict):
        return given
    return {**before, **{key: _merged(before.get(key), value) for key, value in given.items()}}


def _type(kind: type, name: str) -> Any:
    return typing.get_type_hints(kind)[name]


def _value(form: "dataclasses.Field[Any]", kind: Any, given: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):  # `X | None`
        return None if given is None else _value(form, typing.get_args(kind)[0], given, where)
    if dataclasses.is_dataclass(kind):
        return read(typing.cast("type[Any]", kind), given, where)
    if kind is grpc.StatusCode:
        codes = {each.name: each for each in grpc.StatusCode if each is not grpc.StatusCode.OK}
        if not isinstance(given, str) or given not in codes:
            raise Unusable(f"{_shown(given)} is not the name of an error code.", where, _instead(str(given).upper(), codes))
        return codes[given]
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if given not in choices:
            raise Unusable(f"{_shown(given)} is not possible.", where, _instead(str(given), choices))
        return given
    fits = isinstance(given, bool) if kind is bool else isinstance(given, _ACCEPTED[kind]) and not isinstance(given, bool)
    least, most = form.metadata.get("least"), form.metadata.get("most")
    if fits and kind in (int, float):
        fits = (least is None or given >= least) and (most is None or given <= most)
    if not fits:
        raise Unusable(f"{_shown(given)} is not possible.", where, f"It takes {_expected(form, kind)}.")
    return float(given) if kind is float else given


_ACCEPTED: Mapping[Any, Any] = {str: str, int: int, float: (int, float), bool: bool}


def _expected(form: "dataclasses.Field[Any]", kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", grpc.StatusCode: "a code such as UNAVAILABLE"}
    least, most = form.metadata.get("least"), form.metadata.get("most")
    between = f" from {least:g}" if least is not None else ""
    return words.get(kind, "an object") + between + (f" to {most:g}" if most is not None else "")


def _instead(wrong: str, known: Iterable[str]) -> str:
    choices = sorted(known)
    near = difflib.get_close_matches(wrong[:_SHORT], choices, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"There is {_listed(choices)}."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"
