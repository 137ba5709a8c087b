"""The functions of the Logging query language that stand alone in a filter: SEARCH, sample, ip_in_net and source.

https://cloud.google.com/logging/docs/view/logging-query-language#functions
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from localcloud.logs import logfields
from localcloud.logs.logfields import BadValue, Test

_DELIMITERS: Final = re.compile(r"""[\s\[\]<>(){}|!;,'"*&?+/:=@.\-$%\\_]+""")  # [approximated: those of BigQuery's LOG_ANALYZER]
_PHRASE: Final = re.compile(r"`([^`]*)`")


@dataclass(frozen=True)
class Argument:
    """What a function is given: a text, and the field that it names where it is not quoted."""

    text: str
    path: tuple[str, ...]


def test(name: str, arguments: Sequence[Argument]) -> Test:
    """The predicate of a call; BadValue if it cannot be."""
    return _FUNCTIONS[name](arguments)


def _search(arguments: Sequence[Argument]) -> Test:
    """All words of the query are in the entry, or in the field, in any order; `a phrase` in backticks as it stands."""
    if len(arguments) not in (1, 2):
        raise BadValue('SEARCH takes a query, or a field and a query: SEARCH(textPayload, "words").')
    query = arguments[-1].text
    phrases = [_words(phrase) for phrase in _PHRASE.findall(query)]
    wanted = [f" {phrase} " for phrase in (*phrases, *_words(_PHRASE.sub(" ", query)).split()) if phrase]
    if not wanted:
        raise BadValue("SEARCH needs a word to search for.")
    get = logfields.texts if len(arguments) == 1 else _texts_of(arguments[0])

    def found(entry: Any) -> bool:
        texts = [f" {_words(text)} " for text in get(entry)]
        return all(any(each in text for text in texts) for each in wanted)

    return found


def _sample(arguments: Sequence[Argument]) -> Test:
    """A share of the entries, the same ones each time, by a hash of the field [approximated: which ones]."""
    fraction = _fraction(arguments[1].text) if len(arguments) == 2 else None
    if fraction is None or not arguments[0].path:
        raise BadValue("sample takes a field and a fraction above 0 and up to 1: sample(insertId, 0.25).")
    get = _texts_of(arguments[0])

    def chosen(entry: Any) -> bool:
        value = next(iter(get(entry)), "")
        return bool(value) and int.from_bytes(hashlib.sha256(value.encode()).digest()[:8], "big") < fraction * 2**64

    return chosen


def _ip_in_net(arguments: Sequence[Argument]) -> Test:
    """The field's address is in the network."""
    if len(arguments) != 2 or not arguments[0].path:
        raise BadValue('ip_in_net takes a field and a network: ip_in_net(httpRequest.remoteIp, "10.1.2.0/24").')
    try:
        network = ipaddress.ip_network(arguments[1].text, strict=False)
    except ValueError:
        raise BadValue(f"{arguments[1].text!r} is not a network such as 10.1.2.0/24.") from None
    get = _texts_of(arguments[0])

    def inside(text: str) -> bool:
        try:
            return ipaddress.ip_address(text) in network
        except ValueError:
            return False

    return lambda entry: any(inside(text) for text in get(entry))


def _source(arguments: Sequence[Argument]) -> Test:
    """The entry is of this project."""
    if len(arguments) != 1 or not re.fullmatch("projects/[^/]+", arguments[0].text):
        raise BadValue('The local cloud knows neither folders nor organisations: use source("projects/PROJECT_ID").')
    prefix = f"{arguments[0].text}/logs/"
    return lambda entry: bool(entry.log_name.startswith(prefix))


_FUNCTIONS: Final[dict[str, Callable[[Sequence[Argument]], Test]]] = {
    "search": _search, "sample": _sample, "ip_in_net": _ip_in_net, "source": _source,
}  # fmt: skip


def _texts_of(field: Argument) -> Callable[[Any], list[str]]:
    get = logfields.values(field.path)
    return lambda entry: [text for value in get(entry) for text in logfields.words(value)]


def _words(text: str) -> str:
    return " ".join(_DELIMITERS.split(text.casefold())).strip()


def _fraction(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 < found <= 1 else None
