"""Regular expressions in filters mean what they mean in RE2."""

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
    ],
)
def test_a_pattern_is_found(pattern: str, text: str) -> None:
    assert logregex.compile(pattern).search(text)


@pytest.mark.parametrize(("pattern", "text"), [("a$", "a\n"), (r"\Qa.b\E", "axb"), (r"\d", "\u0663"), (r"^\w$", "\u00e9")])
def test_a_pattern_is_not_found(pattern: str, text: str) -> None:
    assert not logregex.compile(pattern).search(text)


REFUSED = ("a(?=b)", "(?<!a)b", r"(a)\1", "(?P<a>x)(?P=a)", "a++", "a{2}+", "(?>a)", "(?#x)", "a{1001}", "(", "a**", r"\Z")


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_re2_refuses_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        logregex.compile(pattern)
