"""Whatever bytes a page holds: an edit done twice is done once, and what is outside of it stays as it was."""

import os
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from released import BUILD_FAILED, PROMOTED, RECORDS

from relais import documents
from relais.documents.lines import Lines

TRICKY = [
    *r"""# Title
## Codex (cloud)
## 🤖 Codex (cloud)
### Codex
#
## #
## [2025-10-08 10:00] - Agent: Codex
## [2025-10-09] - Agent: X
## 2025-10-01 - Base (X)
### 2025-10-09 - Phase P1 - Enrichissement mémoire
### 2025-13-45
| Date | Révision | Image Tag | Description | Statut |
|---|---|---|---|---|
Date | Revision | Status
--|:--:|--
| Status | Tag |
|-|-|
| 2025-10-08 | `a` | `b` | x \| y | ✅ Active (100%) |
| 2025-10-09 | `emergence-app-p1-memory` | `deploy-p1-20251009-140211` | t | ⏸️ Archived |
| a | b | ✅ Deployed |
2025-10-10 | `c` | ✅ Active
| |
|
a|b
```
```markdown
~~~
````
  ```
<!--
-->
<!-- one line -->
<!-- relais: 20251009-140211-3fa9c2 -->
---
- **Dernier sync** : hier
- **Statut** : ✅ Deployed (100% trafic)
**Status:** x
**Next** :
1. one
- item
  - nested
  - **Statut** : nested
 - **Session 2025 (x)** :
- **Foo**: bar
   * **Tests**:
- **Révision** : `emergence-app-phase3b`
- **Revision**: `emergence-app-p1-memory` `deploy-p1-20251009-140211`
    ## 2025-01-01 code
text""".splitlines(),
    *("", "", " ", "stray\rCR", "\x0b\x0c\x1c\u2028\x85", "\ufeff"),
]
NOT_UTF8 = [b"\xff\xfe", b"caf\xe9", b"| \xe9 | x |", b"\xf0\x9f"]

line = st.one_of(st.sampled_from([text.encode() for text in TRICKY]), st.sampled_from(NOT_UTF8))
page = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda bom, lines, ends, last: bom + b"".join(x for pair in zip(lines, ends, strict=False) for x in pair) + last,
        st.sampled_from([b"", b"\xef\xbb\xbf"]), st.lists(line, max_size=14),
        st.one_of(st.just([b"\n"] * 14), st.just([b"\r\n"] * 14), st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=14, max_size=14)),
        st.one_of(st.just(b""), line),
    ),
)
ending = st.sampled_from(["promoted", "rolled-back", "build-failed", "held"])
SECTIONS = ("Codex (cloud)", "Codex", "C #", "#", "`x|y` <b>")
MANY = settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")), deadline=None)


def empty(page: bytes) -> bool:
    return not page.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")


def only_inserted(old: bytes, new: bytes) -> bool:
    """Whether new is old with something put in at one place."""
    front = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    back = next((at for at, (a, b) in enumerate(zip(reversed(old), reversed(new), strict=False)) if a != b), min(len(old), len(new)))
    return len(new) >= len(old) and front + back >= len(old)


@given(page)
@MANY
def test_lines_go_back_byte_for_byte(old: bytes) -> None:
    assert bytes(Lines(old)) == old


@given(page, ending)
@MANY
def test_an_index_edited_twice_is_edited_once(old: bytes, end: str) -> None:
    seen = RECORDS[end]
    once = documents.index(old, seen, "fr", "docs/deployments/x.md")
    assert documents.index(once, seen, "fr", "docs/deployments/x.md") == once


@given(page)
@MANY
def test_an_index_of_a_failed_release_only_gets_its_entry(old: bytes) -> None:
    known = b"deploy-p1-20251009-140211" in old or b"emergence-app-p1-memory" in old
    new = documents.index(old, BUILD_FAILED, "en")
    assert known or empty(old) or only_inserted(old, new)


@given(page)
@MANY
def test_a_promotion_changes_no_line_but_statuses(old: bytes) -> None:
    words = ("Active", "Deployed", "p1-memory", "Statut", "Status")
    kept = [text.rstrip("\r") for text in Lines(old) if not any(word in text for word in words)]
    new = (text.rstrip("\r") for text in Lines(documents.index(old, PROMOTED, "fr")))
    assert empty(old) or all(text in new for text in kept if text.strip())


@given(page, ending)
@MANY
def test_a_journal_edited_twice_is_edited_once(old: bytes, end: str) -> None:
    seen = RECORDS[end]
    once = documents.journal(old, seen, "fr")
    assert documents.journal(once, seen, "fr") == once


@given(page, ending)
@MANY
def test_a_journal_without_this_release_only_gets_its_entry(old: bytes, end: str) -> None:
    seen = RECORDS[end]
    assert seen.id.encode() in old or empty(old) or only_inserted(old, documents.journal(old, seen, "fr"))


@given(page, ending, st.sampled_from(SECTIONS))
@MANY
def test_a_synchronisation_page_edited_twice_is_edited_once(old: bytes, end: str, section: str) -> None:
    seen = RECORDS[end]
    once = documents.sync(old, seen, "fr", section)
    assert documents.sync(once, seen, "fr", section) == once


@given(page, ending)
@MANY
def test_a_synchronisation_page_keeps_what_is_outside_of_the_section(old: bytes, end: str) -> None:
    seen = RECORDS[end]
    new = documents.sync(old, seen, "fr", "Codex (cloud)")
    lines = Lines(old)
    at = [heading.at for heading in lines.headings()]
    found = [h.at for h in lines.headings() if h.text == "Codex (cloud)"] or [h.at for h in lines.headings() if "Codex (cloud)" in h.text]
    if not found:
        assert empty(old) or only_inserted(old, new)
        return
    ends = old.split(b"\n")
    after = next((other for other in at if other > found[0]), len(ends))
    assert new.split(b"\n")[: found[0] + 1] == ends[: found[0] + 1] or found[0] + 1 == len(ends)
    assert new.endswith(b"\n".join(ends[after:]))


@given(st.binary(max_size=60))
@example(b"export IMAGE_TAG=\n")
@example(b"A=1\nIMAGE_TAG='x' # c\nB=2")
@example(b"\xef\xbb\xbfold\r\n")
@MANY
def test_a_build_tag_written_twice_is_written_once(old: bytes) -> None:
    once = documents.build_tag(old, "deploy-p1-20251009-140211")
    assert b"deploy-p1-20251009-140211" in once
    assert documents.build_tag(once, "deploy-p1-20251009-140211") == once


ODD = {
    "a long heading": b"# " + b" " * 200_000 + b"x",
    "fences never closed": b"```x\n" * 12_000,
    "comments never closed": b"<!--\n" * 12_000,
    "pipes": b"|" * 100_000,
    "stars": b"**" * 50_000,
    "a long label": b"- **" + b" " * 99_999,
}


@pytest.mark.parametrize("old", ODD.values(), ids=ODD)
def test_odd_pages_take_no_time(old: bytes) -> None:
    begun = time.monotonic()
    documents.index(old, PROMOTED, "fr")
    documents.journal(old, PROMOTED, "fr")
    documents.sync(old, PROMOTED, "fr", "Codex (cloud)")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_journal_of_twelve_thousand_lines_takes_less_than_a_second_and_keeps_them(ends: bytes) -> None:
    entry = ends.join([b"## [2025-10-08 10:00] - Agent: X", b"```", b"caf\xe9 \r stray", b"```", b"text", b"<!--", b""])
    old = b"\xef\xbb\xbf# Journal" + ends * 2 + entry * 2000
    new = documents.journal(old, PROMOTED, "fr")
    assert only_inserted(old, new)
    assert new.count(ends) == new.count(b"\n")
    assert documents.journal(new, PROMOTED, "fr") == new
