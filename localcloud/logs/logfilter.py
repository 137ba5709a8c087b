"""The Logging query language: a filter's text is parsed once into a predicate over log entries.

https://cloud.google.com/logging/docs/view/logging-query-language. NOT binds tighter than OR, and OR tighter than AND.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import lark

from localcloud.logs import logfields, logfunctions
from localcloud.logs.logfields import BadValue
from localcloud.logs.logfunctions import Argument

_MAX_CHARS: Final = 20_000
_MAX_DEPTH: Final = 100

_GRAMMAR: Final = r"""
start: [expr]
?expr: ors
     | ors (_AND? ors)+           -> every
?ors: unary
    | unary (_OR unary)+          -> either
?unary: atom
      | _NOT unary                -> negated
?atom: "(" expr ")"
     | WORD OP value              -> compared
     | WORD OP "(" values ")"     -> compared
     | (WORD | STRING)            -> anywhere
     | CALL [argument ("," argument)*] ")" -> call

?values: either_value
       | either_value (_AND? either_value)+ -> every
?either_value: one_value
             | one_value (_OR one_value)+   -> either
?one_value: value
          | _VALUE_NOT one_value            -> negated
          | "(" values ")"
value: TEXT | STRING
argument: WORD | STRING

OP: "=~" | "!~" | "!=" | ">=" | "<=" | "=" | ">" | "<" | ":" | "~"
_AND.5: /AND(?=[\s("'\-]|\Z)/
_OR.5: /OR(?=[\s("'\-]|\Z)/
_NOT.5: /NOT(?=[\s("'\-]|\Z)|-(?!-)/
_VALUE_NOT.5: /NOT(?=[\s("'\-]|\Z)/
CALL.5: /\b(log_id|sample|ip_in_net|cast|regexp_extract|search|source)\s*\(/i
STRING: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/s
WORD: /(?!(AND|OR|NOT)([\s("'\-]|\Z))[^\s()"'=:<>!~,\\-][^\s()"'=:<>!~,\\]*((?<=\.)"(\\.|[^"\\])*"[^\s()"'=:<>!~,\\]*)*/s
TEXT: /(?!(AND|OR|NOT)([\s("'\-]|\Z))(-(?!-)|[^\s()"'=:<>!~,\\-])[^\s()"'=:<>!~,\\]*/
%ignore /\s+/
%ignore /--[^\n]*/
"""


_UNSERVED: Final = ("cast", "regexp_extract")
_NO_FUNCTION: Final = r"(?i)\b(cast|regexp_extract)\s*\("


class BadFilter(ValueError):
    """A filter that cannot be used; the message says what and where."""


@dataclass(frozen=True)
class Every:
    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Either:
    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Negated:
    part: "Node"


@dataclass(frozen=True)
class Value:
    text: str
    quoted: bool
    place: str


@dataclass(frozen=True)
class Compared:
    path: tuple[str, ...]
    operator: str
    value: Value


@dataclass(frozen=True)
class Anywhere:
    text: str


@dataclass(frozen=True)
class Called:
    name: str
    arguments: tuple[Argument, ...]
    place: str


Node = Every | Either | Negated | Compared | Anywhere | Called | Value
Predicate = Callable[[Any], bool]


@dataclass(frozen=True)
class Bound:
    """A condition that every entry of the result meets and that the store can decide by a column of its own."""

    column: str
    operator: str
    value: int | str


@dataclass(frozen=True)
class Filter:
    """A compiled filter: called with a LogEntry (protobuf), it says whether the entry is let through."""

    text: str
    predicate: Predicate
    bounds: tuple[Bound, ...] = ()

    def __call__(self, entry: Any) -> bool:
        return self.predicate(entry)


@lru_cache(maxsize=64)  # a filter of 20,000 characters takes some megabytes
def compile(text: str) -> Filter:
    """Make the predicate of a filter; BadFilter says what is wrong and where."""
    tree = parse(text)
    if tree is None:
        return Filter(text, lambda _: True)
    return Filter(text, _predicate(tree, 0), tuple(_bounds(tree)))


def parse(text: str) -> Node | None:
    """Read a filter's text; None if it says nothing."""
    if len(text) > _MAX_CHARS:
        raise BadFilter(f"Unparseable filter: it has {len(text)} characters; at most {_MAX_CHARS} are allowed.")
    try:
        tree: Node | None = _Builder().transform(_PARSER.parse(text))
    except lark.exceptions.VisitError as error:
        if isinstance(error.orig_exc, BadFilter):
            raise error.orig_exc from None
        raise
    except lark.exceptions.UnexpectedToken as error:
        if error.token.type == "$END":
            raise BadFilter("Unparseable filter: it ends where something must follow; is a parenthesis or a value missing?") from None
        raise BadFilter(_syntax_error(text, error.line, error.column, str(error.token))) from None
    except lark.exceptions.UnexpectedCharacters as error:
        raise BadFilter(_syntax_error(text, error.line, error.column, text[error.pos_in_stream or 0])) from None
    except RecursionError:
        raise BadFilter("Unparseable filter: it is nested too deep.") from None
    return tree


def _syntax_error(text: str, line: int, column: int, token: str) -> str:
    before = text.splitlines()[line - 1][: column - 1] if text else ""
    hint = ""
    if call := re.search(_NO_FUNCTION, before):
        return f"Invalid filter at line {line}, column {call.start() + 1}: {_no_function(call[1].lower())}"
    if token[:1] in {'"', "'"} and len(token) == 1:
        hint = " The quotation is not closed."
    elif token == ":" and re.search(r"[=:<>~]\s*\S+$", before):
        hint = " Text that contains ':' must be in double quotation marks."
    return f"Unparseable filter: syntax error at line {line}, column {column}, token '{token[:40]}'.{hint}"


class _Builder(lark.Transformer[Any, Any]):
    """Turns the parse tree into nodes."""

    def start(self, parts: list[Any]) -> Node | None:
        found: Node | None = parts[0] if parts else None
        return found

    def every(self, parts: list[Node]) -> Node:
        return Every(tuple(parts))

    def either(self, parts: list[Node]) -> Node:
        return Either(tuple(parts))

    def negated(self, parts: list[Node]) -> Node:
        return Negated(parts[0])

    def value(self, parts: list[lark.Token]) -> Value:
        token = parts[0]
        quoted = token.type == "STRING"
        return Value(_unquote(token) if quoted else str(token), quoted, f"line {token.line}, column {token.column}")

    def compared(self, parts: list[Any]) -> Node:
        field, operator, values = parts
        return _applied(_path(field), {"~": "=~"}.get(str(operator), str(operator)), values)

    def anywhere(self, parts: list[lark.Token]) -> Node:
        return Anywhere(_unquote(parts[0]) if parts[0].type == "STRING" else str(parts[0]))

    def argument(self, parts: list[lark.Token]) -> Argument:
        token = parts[0]
        return Argument(_unquote(token), ()) if token.type == "STRING" else Argument(str(token), _path(token))

    def call(self, parts: list[Any]) -> Node:
        token, arguments = parts[0], tuple(parts[1:])
        name, place = token.rstrip("( \t\r\n").lower(), f"line {token.line}, column {token.column}"
        if name in _UNSERVED:
            raise BadFilter(f"Invalid filter at {place}: {_no_function(name)}")
        if name != "log_id":
            return Called(name, arguments, place)
        if len(arguments) != 1:
            raise BadFilter(f"Invalid filter at {place}: log_id takes one log: log_id(\"run.googleapis.com/requests\").")
        pattern = f"(?i)^[^/]+/[^/]+/logs/{re.escape(quote(arguments[0].text, safe=''))}$"
        return Compared(("logName",), "=~", Value(pattern, True, place))


def _no_function(name: str) -> str:
    return f"The local cloud serves no function {name}() in filters; it serves log_id, SEARCH, sample, ip_in_net and source."


def _applied(path: tuple[str, ...], operator: str, values: Node) -> Node:
    """`f = (A OR B)` is `f = A OR f = B`."""
    match values:
        case Every(parts):
            return Every(tuple(_applied(path, operator, part) for part in parts))
        case Either(parts):
            return Either(tuple(_applied(path, operator, part) for part in parts))
        case Negated(part):
            return Negated(_applied(path, operator, part))
        case Value():
            return Compared(path, operator, values)
    raise TypeError(values)


_PARSER: Final = lark.Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


_SEGMENT: Final = re.compile(r'"((?:\\.|[^"\\])*)"|([^."]+)', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-7]{3}|.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", '"': '"', "'": "'"}


def _unquote(token: str) -> str:
    return _unescape(token[1:-1])


def _unescape(text: str) -> str:
    def replaced(found: re.Match[str]) -> str:
        code = found[1]
        if len(code) > 1:
            return chr(int(code[1:], 16) if code[0] in "xu" else int(code, 8))
        return _ESCAPES.get(code, found[0])  # an escape that means nothing keeps its backslash, as in "\d+"

    return _ESCAPE.sub(replaced, text)


def _path(token: lark.Token) -> tuple[str, ...]:
    segments = tuple(_unescape(quoted) if plain == "" else plain for quoted, plain in _SEGMENT.findall(token))
    if re.search(r"^\.|\.$|\.\.", re.sub(r'"((?:\\.|[^"\\])*)"', "q", str(token))):
        raise BadFilter(f"Unparseable filter: '{token}' at line {token.line}, column {token.column} is not a field: it has an empty part.")
    return segments


def _predicate(node: Node, depth: int) -> Predicate:
    if depth > _MAX_DEPTH:
        raise BadFilter(f"Unparseable filter: it is nested deeper than {_MAX_DEPTH} levels.")
    match node:
        case Every(parts):
            tests = tuple(_predicate(part, depth + 1) for part in parts)
            return lambda entry: all(test(entry) for test in tests)
        case Either(parts):
            tests = tuple(_predicate(part, depth + 1) for part in parts)
            return lambda entry: any(test(entry) for test in tests)
        case Negated(part):
            test = _predicate(part, depth + 1)
            return lambda entry: not test(entry)
        case Anywhere(text):
            wanted = logfields.fold(text)
            return lambda entry: any(wanted in logfields.fold(found) for found in logfields.texts(entry))
        case Called(name, arguments, place):
            try:
                return logfunctions.test(name, arguments)
            except BadValue as error:
                raise BadFilter(f"Invalid filter at {place}: {error}") from None
        case Compared(path, operator, value):
            try:
                return logfields.comparison(path, operator, value.text, value.quoted)
            except BadValue as error:
                raise BadFilter(f"Invalid filter at {value.place}: {error}") from None
    raise TypeError(node)


_COLUMNS: Final = {
    ("timestamp",): "timestamp",
    ("severity",): "severity",
    ("logname",): "log_name",
    ("resource", "type"): "resource_type",
    ("resource", "labels", "location"): "location",
    ("resource", "labels", "service_name"): "service",
    ("resource", "labels", "revision_name"): "revision",
}


def _bounds(node: Node) -> list[Bound]:
    """What the conjunction at the top says about columns of the store."""
    match node:
        case Every(parts):
            return [bound for part in parts for bound in _bounds(part)]
        case Compared(path, operator, value):
            names = tuple(part if path[:2] == ("resource", "labels") and i == 2 else _plain(part) for i, part in enumerate(path))
            column = _COLUMNS.get(names, "")
            if column in {"timestamp", "severity"} and operator in {"=", "<", "<=", ">", ">="}:
                return [Bound(column, operator, logfields.number_of(column, value.text))]
            if column and operator == "=" and value.text.isascii():
                return [Bound(column, operator, value.text)]
    return []


def _plain(name: str) -> str:
    return name.lower().replace("_", "")
