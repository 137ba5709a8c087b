"""The small values of a release file: durations, sizes, shares, rates, names, texts with {placeholders}; each parsed once, from text."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, JsonValue, PlainSerializer, PlainValidator, WithJsonSchema

from relais.errors import BadInput


class Wrong(ValueError):
    """A value that cannot be: what is wrong with it, how to mend it, and at which key from the one that was being read (".." goes up)."""

    def __init__(self, what: str, remedy: str = "", at: tuple[str | int, ...] = ()) -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what, self.remedy, self.at = what, remedy, at


class Bare(str):
    """A YAML scalar written without quotes: only free JSON asks whether it is a number, a truth or null."""

    __slots__ = ()


def nearest(word: str, words: Iterable[str]) -> str:
    """The remedy for a misspelt word."""
    known = list(dict.fromkeys(words))
    if close := get_close_matches(word.lower(), known, n=1, cutoff=0.6):
        return f"write {close[0]}"
    return f"one of: {', '.join(known)}" if known else ""


# Durations: 300s, 5m, 1h30m, 24h


_SPAN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1, "d": 86_400_000}
_LONGEST = timedelta(days=366)


def duration(value: object) -> timedelta:
    """'5m', '300s', '1h30m' as a span of time; a bare number is refused, for nobody knows its unit."""
    if isinstance(value, timedelta):
        return value
    text = str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    if re.fullmatch(r"-?[0-9.]+", text):
        raise Wrong(f"{text} has no unit", f"write {text.lstrip('-')}s if seconds are meant")
    if not text or _SPAN.sub("", text):
        raise Wrong(f"{_shown(value)} is not a duration", "write a number and a unit, such as 90s, 5m, 1h30m, 24h")
    span = timedelta(milliseconds=sum(round(float(number) * _UNITS[unit]) for number, unit in _SPAN.findall(text)))
    if span > _LONGEST:
        raise Wrong(f"{text} is longer than a year", "write a shorter duration")
    return span


def duration_text(span: timedelta) -> str:
    """The shortest text that `duration` reads back: 24h, 90s, 250ms."""
    count = span // timedelta(milliseconds=1)
    unit = next((unit for unit in ("h", "m", "s") if count % _UNITS[unit] == 0), "ms") if count else "s"
    return f"{count // _UNITS[unit]}{unit}"


def _schema(pattern: str, *examples: object) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "number"], "pattern": pattern, "examples": list(examples)})


Duration = Annotated[
    timedelta,
    PlainValidator(duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^([0-9.]+(ms|s|m|h|d))+$", "examples": ["90s", "5m", "24h"]}),
]


def between(low: str, high: str) -> AfterValidator:
    """A bound for durations, in the words of the file."""
    least, most = duration(low), duration(high)

    def check(span: timedelta) -> timedelta:
        if not least <= span <= most:
            raise Wrong(f"is not between {low} and {high}", f"write a duration from {low} to {high}")
        return span

    return AfterValidator(check)


# Sizes: 2GB (decimal), 2Gi (binary); the text stays for the API


_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([kKMGT]i?)?(B?)")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, order=True)
class Size:
    """So many bytes, and the text that said so."""

    bytes: int
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text


def size(value: object) -> Size:
    """'2GB' is 2 * 10**9 bytes, '2Gi' is 2 * 2**30."""
    if isinstance(value, Size):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not match or not (match[2] or match[3]):
        bare = isinstance(value, (str, int, float)) and re.fullmatch(r"[0-9.]+", str(value))
        raise Wrong(
            f"{_shown(value)} {'has no unit' if bare else 'is not a size'}",
            f"write {value}Mi or {value}Gi" if bare else "write a number and a unit, such as 512Mi, 2Gi, 2GB",
        )
    unit = match[2] or ""
    base = 1024 if unit.endswith("i") else 1000
    return Size(bytes=round(float(match[1]) * base ** _POWERS.get(unit[:1].lower(), 0)), text=str(value))


def _memory(value: object) -> Size:
    found = size(value)
    if found.text.endswith("B"):
        raise Wrong(f"{found.text} is not a size that Cloud Run knows", f"write {found.text.rstrip('iB')}i, as in 512Mi or 2Gi")
    if not MI * 128 <= found.bytes <= GI * 32:
        raise Wrong(f"{found.text} is not between 128Mi and 32Gi", "write a size from 128Mi to 32Gi")
    return found


MI, GI = 2**20, 2**30
_AS_TEXT = PlainSerializer(str, return_type=str)
ByteSize = Annotated[Size, PlainValidator(size), _AS_TEXT, WithJsonSchema({"type": "string", "examples": ["2GB", "512Mi"]})]
Memory = Annotated[Size, PlainValidator(_memory), _AS_TEXT, WithJsonSchema({"type": "string", "examples": ["512Mi", "2Gi"]})]


# CPU: 1, 2, 4, 6, 8, a part of one; 2 and 2000m are the same


@dataclass(frozen=True, order=True)
class Cpu:
    """So many cores, and the text that said so."""

    cores: float
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text


def _cpu(value: object) -> Cpu:
    if isinstance(value, Cpu):
        return value
    text = str(value)
    match = re.fullmatch(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)(m?)", text)
    cores = float(match[1]) / (1000 if match[2] else 1) if match else 0.0
    if cores not in {1, 2, 4, 6, 8} and not 0.08 <= cores < 1:
        raise Wrong(f"{_shown(value)} is not a number of CPUs that Cloud Run knows", "write 1, 2, 4, 6, 8, or a part of one from 0.08")
    return Cpu(cores=cores, text=text)


Cpus = Annotated[Cpu, PlainValidator(_cpu), _AS_TEXT, _schema(r"^[0-9.]+m?$", 2, "500m")]


# Shares, rates, whole numbers, truths


def ratio(value: object) -> float:
    """'1%' and 0.01 are the same share."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = repr(value)
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,9})?(?:[eE]-?[0-9]{1,2})?)\s?(%?)", value) if isinstance(value, str) else None
    if not match:
        raise Wrong(f"{_shown(value)} is not a share", "write a percentage such as 1%, or a part of one such as 0.01")
    part = float(match[1]) / (100 if match[2] else 1)
    if not 0 < part < 1:
        raise Wrong(
            f"{value} is not a share between 0 and 1",
            f"write {match[1]}%" if not match[2] and 1 <= part < 100 else "write a percentage between 0% and 100%",
        )
    return part


Share = Annotated[float, PlainValidator(ratio), _schema(r"^[0-9.]+%?$", "1%", 0.01)]


def rate(value: object) -> float:
    """'2/s', '30/m', '100/h' as times a second."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        per_second = float(value)
    else:
        match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)/(s|m|h)", value) if isinstance(value, str) else None
        if not match:
            raise Wrong(f"{_shown(value)} is not a rate", "write a number by a unit of time, such as 2/s or 30/m")
        per_second = float(match[1]) * 1000 / _UNITS[match[2]]
    if not 0 < per_second <= 100:
        raise Wrong(f"{value} is not between 0 and 100 a second", "write a rate up to 100/s")
    return per_second


Rate = Annotated[float, PlainValidator(rate), _schema(r"^[0-9.]+/(s|m|h)$", "2/s", "30/m")]


TRUTHS = {"yes": "true", "on": "true", "y": "true", "1": "true", "no": "false", "off": "false", "n": "false", "0": "false"}
"""What other notations say for true and false; here they are refused, for in YAML 1.2 they are texts."""


def unquoted(value: object) -> object:
    """true and false as truths, for the fields that take a word or a truth; everything else as it is."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _flag(value: object) -> bool:
    truth = unquoted(value)
    if isinstance(truth, bool):
        return truth
    said = TRUTHS.get(str(value).lower())
    raise Wrong(f"{_shown(value)} is neither true nor false", f"write {said or 'true or false'}")


def whole(value: object) -> object:
    """A whole number, written in digits."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Wrong(f"{_shown(value)} is not a whole number", "write it in digits")


def _number(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?([eE]-?[0-9]{1,2})?", value):
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise Wrong(f"{_shown(value)} is not a number", "write it in digits")


def _percent(value: object) -> int:
    found = whole(value.removesuffix("%") if isinstance(value, str) else value)
    if not isinstance(found, int) or not 1 <= found <= 99:
        raise Wrong(f"{_shown(value)} is not a step", "write whole percents from 1 to 99; 100 follows by itself")
    return found


Flag = Annotated[bool, BeforeValidator(_flag)]
Whole = Annotated[int, BeforeValidator(whole)]
Number = Annotated[float, BeforeValidator(_number)]
Percent = Annotated[int, PlainValidator(_percent), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 99})]


# Texts


def _text(value: str) -> str:
    if not value.strip():
        raise Wrong("is empty", "write a text, or remove the key")
    return value


def _line(value: str) -> str:
    if len(_text(value).splitlines()) > 1:
        raise Wrong("has more than one line", "write it in one line")
    return value.strip()


Text = Annotated[str, AfterValidator(_text)]
Line = Annotated[str, AfterValidator(_line)]


def formed(pattern: str, what: str, remedy: str) -> AfterValidator:
    """A text of one form."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise Wrong(f"{_shown(value)} is not {what}", remedy)
        return value

    return AfterValidator(check)


def _commit(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{4,40}", value):
        raise Wrong(f"{_shown(value)} is not a commit", "write 4 to 40 hexadecimal digits, as git log shows them")
    return value.lower()


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if not value.strip() or path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
        raise Wrong(f"{_shown(value)} is not a path inside the repository", "write a relative path without ..")
    return value


def pattern(value: str) -> str:
    """A plain text, or a regular expression between slashes."""
    _text(value)
    if is_regex(value):
        try:
            re.compile(value[1:-1])
        except (re.error, OverflowError, RecursionError) as error:
            raise Wrong(f"{value} is not a regular expression: {error}", "mend it, or write the plain text without slashes") from None
    return value


def is_regex(value: str) -> bool:
    """Whether a pattern of the file is a regular expression: /between slashes/."""
    return len(value) > 2 and value.startswith("/") and value.endswith("/")


def found_in(wanted: str, text: str) -> bool:
    """Whether a pattern of the file is in a text."""
    return re.search(wanted[1:-1], text, re.MULTILINE) is not None if is_regex(wanted) else wanted in text


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        close = get_close_matches(value, available_timezones(), n=1)
        raise Wrong(f"{_shown(value)} is not a time zone", f"write {close[0] if close else 'one such as Europe/Paris'}") from None
    return value


def _day(value: object) -> date:
    if isinstance(value, date):
        return value
    try:
        if not isinstance(value, str) or len(value) != 10:
            raise ValueError
        return date.fromisoformat(value)
    except ValueError:
        raise Wrong(f"{_shown(value)} is not a day", "write year-month-day, such as 2025-10-31") from None


Commit = Annotated[str, AfterValidator(_commit), WithJsonSchema({"type": ["string", "integer"], "examples": ["588c5dc"]})]
RepoPath = Annotated[str, AfterValidator(_inside)]
Pattern = Annotated[str, AfterValidator(pattern)]
Zone = Annotated[str, AfterValidator(_zone)]
Day = Annotated[date, PlainValidator(_day), PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string", "format": "date"})]

RESERVED = ("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION")


def env_name(value: str) -> str:
    """The name of an environment variable that a revision may set."""
    if value in RESERVED:
        raise Wrong(f"{value} is set by Cloud Run itself", "remove it")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise Wrong(f"{_shown(value)} is not the name of an environment variable", "write letters, digits and _")
    return value


EnvName = Annotated[str, AfterValidator(env_name)]


# Texts with {placeholders}


_HOLE = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}|(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)\}")


def placeholders(text: str) -> tuple[str, ...]:
    """The names between braces, in order; {{name}} is text, and so is ${NAME}."""
    return tuple(match[2] for match in _HOLE.finditer(text) if match[2])


def fill(text: str, facts: Mapping[str, str]) -> str:
    """The text with each {name} replaced by its fact."""

    def put(match: re.Match[str]) -> str:
        if match[1]:
            return f"{{{match[1]}}}"
        if not facts.get(match[2]):
            remedy = f"give the release a {match[2]}, or leave it out of the text"
            raise BadInput(f"{{{match[2]}}} in {text!r} has no value here", remedy=remedy)
        return facts[match[2]]

    return _HOLE.sub(put, text)


def template(*names: str, command: bool = False) -> AfterValidator:
    """A text whose placeholders are all known; a command may hold other braces."""

    def check(value: str) -> str:
        for name in placeholders(_text(value)):
            if name not in names:
                literal = f", or {{{{{name}}}}} for the text itself" if command else ""
                raise Wrong(f"{{{name}}} is not known here", nearest(name, names) + literal)
        if not command and re.search(r"[{}]", _HOLE.sub("", value)):
            raise Wrong(f"{_shown(value)} has a brace too many", f"write placeholders as {{{names[0]}}}")
        return value

    return AfterValidator(check)


# Free JSON


def as_json(value: object) -> Any:
    """What YAML's core schema makes of bare scalars; quoted ones are texts."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return _core_schema(value) if isinstance(value, Bare) else value


def _core_schema(value: str) -> bool | int | float | str:
    if value in ("true", "false"):
        return value == "true"
    if re.fullmatch(r"-?(0|[1-9][0-9]{0,30})", value):
        return int(value)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", value) and math.isfinite(float(value)):
        return float(value)
    return str(value)


Json = Annotated[JsonValue, BeforeValidator(as_json)]


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value if len(value) <= 60 and value.isprintable() and value.strip() else repr(value[:60])
    return {dict: "a mapping", list: "a list", bool: str(value).lower(), type(None): "nothing"}.get(type(value), str(value)[:60])
