"""What serves is what was built, by digest and by split."""

import pytest

from relais.contract import serves_findings
from relais.model import Share, Split

BUILT, OTHER = (f"sha256:{digit * 64}" for digit in "12")


def split(**shares: int) -> Split:
    return Split(shares=tuple(Share(revision=name, percent=percent) for name, percent in shares.items()))


DIGESTS = [
    pytest.param(BUILT, BUILT, "passed", id="the same"),
    pytest.param(OTHER, BUILT, "failed", id="another"),
    pytest.param("", BUILT, "not proven", id="what serves is named by tag"),
    pytest.param(BUILT, "", "not proven", id="what was built is not known"),
]


@pytest.mark.parametrize(("serving", "built", "outcome"), DIGESTS)
def test_the_digest_that_serves_is_compared_with_the_one_built(serving: str, built: str, outcome: str) -> None:
    digest, _ = serves_findings(split(new=100), split(new=100), serving, built)
    assert (digest.outcome, digest.kind, digest.required) == (outcome, "proof", True)


def test_the_split_is_compared_whatever_its_order() -> None:
    assert serves_findings(split(a=90, b=10), split(b=10, a=90), BUILT, BUILT)[1].outcome == "passed"


def test_another_split_fails_and_says_who_serves() -> None:
    finding = serves_findings(split(old=100), split(new=100), BUILT, BUILT)[1]
    assert (finding.outcome, finding.detail) == ("failed", "asked for new 100 %; old 100 % serves")
