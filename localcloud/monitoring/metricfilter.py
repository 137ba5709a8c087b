"""The filter language of Cloud Monitoring, made into a predicate over series (https://cloud.google.com/monitoring/api/v3/filters).

NOT binds tighter than OR, and OR tighter than AND, as in Cloud Logging.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import lark

from localcloud.logs import logregex
from localcloud.wire import Code, Refusal

_GRAMMAR: Final = r"""
start: [expr]
?expr: ors | ors (_AND? ors)+ -> every
?ors: unary | unary (_OR unary)+ -> either
?unary: atom | _NOT unary -> negated
?atom: "(" expr ")" | FIELD OP value -> compared
value: STRING -> text
     | BARE -> text
     | FUNCTION "(" STRING ("," STRING)* ")" -> function

OP: "!=" | "=" | ":"
_AND.5: /AND(?=[\s("\-]|\Z)/
_OR.5: /OR(?=[\s("\-]|\Z)/
_NOT.5: /NOT(?=[\s("\-]|\Z)|-/
FIELD: /(?!(AND|OR|NOT)\b)[a-z_]+(\.([A-Za-z_0-9]+|"[^"]*"))*/
FUNCTION.4: "starts_with" | "ends_with" | "has_substring" | "one_of" | "monitoring.regex.full_match"
STRING: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/s
BARE: /(?!(AND|OR|NOT)\b)[A-Za-z0-9_][A-Za-z0-9_.\/-]*/
%ignore /\s+/
"""
_MOST_CHARS: Final = 2048
_PARSER: Final = lark.Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)

Fields = Mapping[str, str]
Predicate = Callable[[Fields], bool]


@dataclass(frozen=True)
class Filter:
    """A compiled filter. `types`: what the conjunction at the top says that metric.type equals; `fields`: all that it names."""

    predicate: Predicate
    types: tuple[str, ...] = ()
    fields: frozenset[str] = frozenset()
    resources: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Part:
    """A part of a filter: what it says, what must equal a text in it (field, text), and the fields that it names."""

    test: Predicate
    equal: tuple[tuple[str, str], ...]
    fields: frozenset[str]


@lru_cache(maxsize=256)
def compile(text: str) -> Filter:
    """Make the predicate of a filter over fields such as metric.type and resource.labels.location; a Refusal says what is wrong."""
    if len(text) > _MOST_CHARS:
        raise invalid(f"{text[:60]}...", f"It has {len(text)} characters; at most {_MOST_CHARS} are allowed.")  # [approximated: the text]
    try:
        part: _Part | None = _Builder().transform(_PARSER.parse(text))
    except lark.exceptions.VisitError as error:
        raise invalid(text, str(error.orig_exc)) from None
    except RecursionError:
        raise invalid(text, "It is nested too deep.") from None
    except lark.exceptions.UnexpectedToken as error:
        raise invalid(text, _syntax(text, error.line, error.column, str(error.token))) from None
    except lark.exceptions.UnexpectedCharacters as error:
        raise invalid(text, _syntax(text, error.line, error.column, text[error.pos_in_stream or 0])) from None
    if part is None:
        return Filter(lambda _: True)
    types = tuple(value for field, value in part.equal if field == "metric.type")
    resources = tuple(value for field, value in part.equal if field == "resource.type")
    return Filter(part.test, types, part.fields, resources)


def invalid(text: str, why: str) -> Refusal:
    """[real text]"""
    return Refusal(Code.INVALID_ARGUMENT, f'Field filter had an invalid value of "{text}": {why}')


def _syntax(text: str, line: int, column: int, token: str) -> str:
    return f"Could not parse filter \"{text}\"; syntax error at line {line}, column {column}, token '{token[:40]}'"


class _Builder(lark.Transformer[Any, Any]):
    """Turns the parse tree into parts."""

    def start(self, parts: list[_Part]) -> _Part | None:
        return parts[0] if parts else None

    def every(self, parts: list[_Part]) -> _Part:
        tests = tuple(part.test for part in parts)
        equal = tuple(pair for part in parts for pair in part.equal)
        return _Part(lambda fields: all(test(fields) for test in tests), equal, _named(parts))

    def either(self, parts: list[_Part]) -> _Part:
        tests = tuple(part.test for part in parts)
        return _Part(lambda fields: any(test(fields) for test in tests), (), _named(parts))

    def negated(self, parts: list[_Part]) -> _Part:
        test = parts[0].test
        return _Part(lambda fields: not test(fields), (), parts[0].fields)

    def text(self, parts: list[lark.Token]) -> tuple[str, tuple[str, ...]]:
        return "", (_unquoted(parts[0]),)

    def function(self, parts: list[lark.Token]) -> tuple[str, tuple[str, ...]]:
        return str(parts[0]), tuple(_unquoted(each) for each in parts[1:])

    def compared(self, parts: list[Any]) -> _Part:
        field = _field(str(parts[0]))
        (function, texts), operator = parts[2], str(parts[1])
        if operator == ":":
            function = function or "has_substring"
        test, negative = _test(function, texts), operator == "!="
        equal = ((field, texts[0]),) if operator == "=" and not function else ()
        return _Part(lambda fields: test(fields.get(field, "")) is not negative, equal, frozenset({field}))


def _named(parts: list[_Part]) -> frozenset[str]:
    return frozenset[str]().union(*(part.fields for part in parts))


def _field(given: str) -> str:
    name = re.sub(r"^(metric|resource)\.label\.", r"\1.labels.", given.replace('"', ""))
    if name in {"metric.type", "resource.type", "project"} or re.fullmatch(r"(metric|resource)\.labels\.[A-Za-z_0-9]+", name):
        return name
    raise ValueError(f"The comparison operand: '{name.rsplit('.', maxsplit=1)[-1]}' cannot be used in a filter here.")  # [approximated]


def _test(function: str, texts: tuple[str, ...]) -> Callable[[str], bool]:
    wanted = texts[0]
    if function != "one_of" and len(texts) > 1:
        raise ValueError(f"The function {function} takes one argument.")
    if function == "monitoring.regex.full_match":
        try:
            return logregex.full_match(wanted)
        except ValueError as error:
            raise ValueError(f"The regular expression '{wanted}' is not valid: {error}") from None
    if function == "starts_with":
        return lambda value: value.startswith(wanted)
    if function == "ends_with":
        return lambda value: value.endswith(wanted)
    if function == "has_substring":
        return lambda value: wanted in value
    return lambda value: value in texts


def _unquoted(token: lark.Token) -> str:
    text = str(token)
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] in "\"'" else text
