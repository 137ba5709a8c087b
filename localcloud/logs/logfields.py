"""The fields of a log entry as the Logging query language sees them: their types, how a value converts, what a comparison means."""

import operator as operators
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from localcloud.logs import entries, logregex

_NANO: Final = 1_000_000_000
_INT64: Final = 2**63 - 1
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operators.eq, ":": operators.eq, "!=": operators.ne, "<": operators.lt, "<=": operators.le, ">": operators.gt, ">=": operators.ge,
}  # fmt: skip
_UNITS: Final = {"ns": 1, "us": 1000, "ms": 1_000_000, "s": _NANO, "m": 60 * _NANO, "h": 3600 * _NANO}
_DURATION: Final = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(ns|us|ms|s|m|h)", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_SEVERITY_NAMES: Final = {number: name for name, number in entries.SEVERITIES.items()}

Test = Callable[[Any], bool]
Getter = Callable[[Any], Iterable[Any]]


class BadValue(ValueError):
    """A field that no log entry has, or a value that its type does not take."""


def fold(text: str) -> str:
    """Text as comparisons see it: compatibility-normalised, case aside."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def comparison(path: tuple[str, ...], operator: str, value: str, quoted: bool) -> Test:
    """The predicate of `path operator value` over log entries; BadValue if there is no such field or the value does not fit its type."""
    exists = operator == ":" and value == "*" and not quoted
    kind, get = _field(path, exists)
    if exists:
        return lambda entry: any(True for _ in get(entry))
    test = _test(kind, ".".join(path), operator, value, quoted)
    return lambda entry: any(test(found) for found in get(entry))


def number_of(kind: str, value: str) -> int:
    """A value for the field `timestamp` (nanoseconds, held within 64 bits) or `severity`."""
    try:
        if kind == "timestamp":
            return max(-_INT64, min(_INT64, entries.nanoseconds(value)))
        if kind == "duration":
            return _duration(value)
    except ValueError as error:
        raise BadValue(str(error)) from None
    severity = int(value) if re.fullmatch("[0-9]{1,9}", value) else entries.SEVERITIES.get(value.upper())
    if severity is None:
        raise BadValue(f"{value!r} is not a severity; the severities are {', '.join(entries.SEVERITIES)}.")
    return severity


def texts(entry: Any) -> Iterator[str]:
    """Every value in the entry as text: where a word without a field is looked for."""
    yield _SEVERITY_NAMES.get(entry.severity, str(entry.severity))
    for descriptor, value in entry.ListFields():
        if descriptor.name != "severity":
            yield from words(value)


def values(path: tuple[str, ...]) -> Getter:
    """How to get the values of a field, or of all that is in it; BadValue if there is no such field."""
    return _field(path, exists=False)[1]


def words(value: Any) -> Iterator[str]:
    """A value of a field as text: all that is in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, (int, float)):
        yield str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    elif hasattr(value, "values") and not hasattr(value, "DESCRIPTOR"):  # a map
        for key in value:
            yield from words(value[key])
    elif hasattr(value, "ToJsonString"):  # a time or a duration
        yield value.ToJsonString()
    elif hasattr(value, "ListFields"):
        for _, inner in value.ListFields():
            yield from words(inner)
    elif not isinstance(value, bytes):
        for inner in value:
            yield from words(inner)


def _field(path: tuple[str, ...], exists: bool) -> tuple[str, Getter]:
    """The type of a field and how to get it: all values for an array, none where it is missing, the default where LogEntry defines it."""
    descriptor = entries.LogEntry.DESCRIPTOR
    names: list[str] = []
    for position, segment in enumerate(path):
        field = _by_name(descriptor, segment)
        if field is None:
            raise BadValue(f"Field not found: '{'.'.join(path)}'. {_known(descriptor, path[:position])}")
        names.append(field.name)
        message = field.message_type
        rest = path[position + 1 :]
        if message is None:
            if rest:
                raise BadValue(f"Field not found: '{'.'.join(path)}'. {'.'.join(path[: position + 1])} has no parts.")
            return _scalar_kind(field), _scalar_getter(tuple(names), exists)
        if message.GetOptions().map_entry:
            return "string", _map_getter(tuple(names), ".".join(rest))
        if message.full_name == "google.protobuf.Struct":
            return "json", _struct_getter(tuple(names), rest, exists)
        if message.full_name in {"google.protobuf.Timestamp", "google.protobuf.Duration"}:
            if rest:
                raise BadValue(f"Field not found: '{'.'.join(path)}'. {'.'.join(path[: position + 1])} has no parts.")
            return message.name.lower(), _time_getter(tuple(names), exists)
        if message.full_name == "google.protobuf.Any":
            return "json", lambda _: ()  # nothing in the local cloud writes a protoPayload
        descriptor = message
    return "message", _message_getter(tuple(names), exists)


def _by_name(descriptor: Any, segment: str) -> Any:
    wanted = segment.lower()
    for field in descriptor.fields:
        if wanted in {field.name.lower(), field.json_name.lower()}:
            return field
    return None


def _known(descriptor: Any, prefix: tuple[str, ...]) -> str:
    names = ", ".join(sorted(field.json_name for field in descriptor.fields))
    return f"The fields of {'.'.join(prefix) or 'a log entry'} are {names}."


def _scalar_kind(field: Any) -> str:
    if field.name == "severity":
        return "severity"
    if field.type == field.TYPE_BOOL:
        return "bool"
    return "string" if field.type == field.TYPE_STRING else "number"


def _reach(entry: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        entry = getattr(entry, name)
    return entry


def _scalar_getter(names: tuple[str, ...], exists: bool) -> Getter:
    def get(entry: Any) -> Iterable[Any]:
        found = _reach(entry, names)
        return (found,) if found or not exists else ()

    return get


def _time_getter(names: tuple[str, ...], exists: bool) -> Getter:
    def get(entry: Any) -> Iterable[int]:
        holder = _reach(entry, names[:-1])
        if exists and not holder.HasField(names[-1]):
            return ()
        found = getattr(holder, names[-1])
        return (found.seconds * _NANO + found.nanos,)

    return get


def _message_getter(names: tuple[str, ...], exists: bool) -> Getter:
    def get(entry: Any) -> Iterable[str]:
        holder = _reach(entry, names[:-1])
        if not holder.HasField(names[-1]):
            return ()
        return ("",) if exists else words(getattr(holder, names[-1]))

    return get


def _map_getter(names: tuple[str, ...], key: str) -> Getter:
    def get(entry: Any) -> Iterable[str]:
        found = _reach(entry, names)
        if key:
            return (found[key],) if key in found else ()
        return [*found, *found.values()]

    return get


def _struct_getter(names: tuple[str, ...], keys: tuple[str, ...], exists: bool) -> Getter:
    def get(entry: Any) -> Iterable[Any]:
        holder = _reach(entry, names[:-1])
        if not holder.HasField(names[-1]):
            return ()
        return _walk(getattr(holder, names[-1]), keys, exists)

    return get


def _walk(struct: Any, keys: tuple[str, ...], exists: bool) -> Iterator[Any]:
    if not keys:
        if exists:
            yield ""
        else:
            yield from words(struct)
    elif keys[0] in struct.fields:
        yield from _value(struct.fields[keys[0]], keys[1:], exists)


def _value(value: Any, keys: tuple[str, ...], exists: bool) -> Iterator[Any]:
    match value.WhichOneof("kind"):
        case "struct_value":
            yield from _walk(value.struct_value, keys, exists)
        case "list_value":
            for element in value.list_value.values:
                yield from _value(element, keys, exists)
        case kind if not keys:
            yield None if kind == "null_value" or kind is None else getattr(value, kind)


def _test(kind: str, field: str, operator: str, value: str, quoted: bool) -> Test:
    if kind == "json":
        return _json_test(operator, value, quoted)
    if kind == "message":
        if operator != ":":
            raise BadValue(f"'{field}' is not a single value; name one of its parts, or search all of them with ':'.")
        return _string_test(operator, value)
    if kind == "string":
        return _string_test(operator, value)
    if operator in {"=~", "!~"}:
        if kind == "severity":
            matches = _string_test(operator, value)
            return lambda found: matches(_SEVERITY_NAMES.get(found, str(found)))
        raise BadValue(f"'{operator}' needs a field that holds text; '{field}' holds a {kind}.")
    compare = _COMPARE[operator]
    wanted: Any
    if kind == "number":
        if (wanted := _number(value)) is None:
            raise BadValue(f"{value!r} is not a number, which '{field}' holds.")
    elif kind == "bool":
        if (wanted := _bool(value)) is None:
            raise BadValue(f"{value!r} is neither true nor false, which '{field}' is.")
    else:
        wanted = number_of(kind, value)
    return lambda found: compare(found, wanted)


def _string_test(operator: str, value: str) -> Test:
    if operator in {"=~", "!~"}:
        matches = _regex(value)
        return matches if operator == "=~" else lambda found: not matches(found)
    wanted = fold(value)
    if operator == ":":
        return lambda found: wanted in fold(found)
    compare = _COMPARE[operator]
    return lambda found: compare(fold(found), wanted)


def _json_test(operator: str, value: str, quoted: bool) -> Test:
    """jsonPayload has the types of what arrived; a value that does not convert to the type found there does not compare."""
    as_text = _string_test(operator, value)
    null = value == "NULL_VALUE" and not quoted
    number, boolean = _number(value), _bool(value)
    compare = _COMPARE.get(operator)

    def test(found: Any) -> bool:
        if isinstance(found, str):
            return as_text(found)
        if found is None or null:
            return null and compare is not None and compare(found is None, True)
        wanted = boolean if isinstance(found, bool) else number
        return compare is not None and wanted is not None and compare(found, wanted)

    return test


def _regex(pattern: str) -> logregex.Search:
    try:
        return logregex.search(pattern)
    except ValueError as error:
        raise BadValue(str(error)) from None


def _number(value: str) -> float | int | None:
    if not _NUMBER.fullmatch(value):
        return None
    try:
        return int(value)
    except ValueError:
        return float(value)


def _bool(value: str) -> bool | None:
    return {"true": True, "false": False}.get(value.lower())


def _duration(value: str) -> int:
    found = _DURATION.fullmatch(value)
    if not found:
        raise ValueError(f"{value!r} is not a duration such as 0.5s, 250ms or 2m.")
    sign, amount, unit = found.groups()
    return round(float(amount) * _UNITS[unit]) * (-1 if sign == "-" else 1)
