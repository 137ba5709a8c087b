"""Regular expressions in filters mean what they mean in RE2."""

import time

import pytest

from localcloud.logs import logregex


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^a.c$", "abc"),
        (r"\d{3}-\w+", "123-abc"),
        ("(?i)worker [0-9]+", "WORKER 7"),
        (r"[[:alpha:]_]+\z", "a_b"),
        (r"[^[:digit:]]", "x"),
        (r"\Qa.b\E+", "a.bbb"),
        (r"\x{41}", "A"),
        ("[]a]", "]"),
        ("[^]a]", "b"),
        (r"[\]x]", "]"),
        ("[$+*?]", "$"),
        ("[a+]+", "a+a"),
        ("(?P<name>a)|b", "b"),
        ("a{1000}", "a" * 1000),
        ("(?m)^b$", "a\nb\nc"),
        ("a[[]b", "a[b"),
        ("a{e<=1}", "a{e<=1}"),
        ("(?<name>a)(?i:B)", "ab"),
        ("((a{10}){10}){10}", "a" * 1000),
        ("a(?i)b", "aB"),
        (r"\p{Greek}[[:^digit:]]", "\u03b1x"),
        ("(?i)\u00c9", "\u00e9"),
    ],
)
def test_a_pattern_is_found(pattern: str, text: str) -> None:
    assert logregex.search(pattern)(text)


@pytest.mark.parametrize(("pattern", "text"), [("a$", "a\n"), (r"\Qa.b\E", "axb"), (r"\d", "\u0663"), (r"^\w$", "\u00e9")])
def test_a_pattern_is_not_found(pattern: str, text: str) -> None:
    assert not logregex.search(pattern)(text)


REFUSED = (
    "a(?=b)", "(?<!a)b", r"(a)\1", "(?P<a>x)(?P=a)", "a++", "a{2}+", "(?>a)", "(?#x)", "a{1001}", "(", "a**", r"\Z",
    "((a{20}){20}){20}", "(?:a{500}b?){3}", "x{1000}" * 50, "(?R)", "(?|a|b)", r"\K", r"\X", r"\L<x>", "[[:none:]]",
)  # fmt: skip


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_re2_refuses_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        logregex.search(pattern)


def test_a_pattern_that_would_take_others_for_ever_takes_a_moment() -> None:
    began = time.process_time()
    assert not logregex.search("(a|aa)+$")("a" * 256 * 1024 + "!")
    assert time.process_time() - began < 1
