"""Splits: whole numbers that sum to 100, in the stable revisions' own proportions."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from relais.model import Share, Split

parts = st.lists(st.integers(1, 100), min_size=1, max_size=5).map(lambda ps: [round(100 * p / sum(ps)) for p in ps])


@st.composite
def splits(draw: st.DrawFn) -> Split:
    cuts = sorted(draw(st.lists(st.integers(1, 99), max_size=4, unique=True)))
    edges = [0, *cuts, 100]
    return Split(shares=tuple(Share(revision=f"app-{i}", percent=b - a) for i, (a, b) in enumerate(itertools.pairwise(edges))))


@given(splits(), st.integers(0, 100))
def test_the_candidate_gets_its_share_and_the_others_the_rest_in_proportion(split: Split, percent: int) -> None:
    given_ = split.giving("candidate", percent)
    assert sum(given_.by_name().values()) == 100
    assert given_.percent("candidate") == percent
    for share in split.shares:
        assert abs(given_.percent(share.revision) - share.percent * (100 - percent) / 100) <= 1


def test_a_split_is_the_same_whatever_the_order_of_its_shares() -> None:
    one, two = Share(revision="a", percent=30), Share(revision="b", percent=70)
    assert Split(shares=(one, two)).same(Split(shares=(two, one), mode="latest"))
    assert str(Split(shares=(one, two))) == "a 30 %, b 70 %"
