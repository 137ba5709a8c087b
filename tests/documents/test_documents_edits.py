"""The edits case by case: who is active, what is keyed, which form is found, where files lie, and text that cannot break out."""

import pytest
from markdown_it import MarkdownIt
from released import AT_ONCE, BUILD_FAILED, CANARY_MOVES, HELD, KILLED, OLD, PLAN, PROMOTED, REVISIONS, ROLLED_BACK, SOURCE, at, pinned

from relais import documents
from relais.documents.words import block, cell, code, duration, inline, size
from relais.model import Commit, Move, Record, Revision

HEAD = "| Date | Révision | Image Tag | Description | Statut |\n|---|---|---|---|---|\n"
BEFORE = HEAD + f"| 2025-10-09 | `{OLD}` | `t3b` | Phase 3b | ✅ Active (100%) |\n| 2025-10-07 | `socle` | `t0` | Socle | ⏸️ Archived |\n"


def index(old: str, record: Record) -> str:
    return documents.index(old.encode(), record, "fr", "docs/deployments/x.md").decode()


def statuses(page: str) -> list[str]:
    return [row.split("|")[-2].strip() for row in page.splitlines() if row.startswith("| 2025")]


def later(record: Record) -> Record:
    """The same kind of release, the day after."""
    assert record.plan
    plan = record.plan.model_copy(update={"id": "later", "started": at(1440), "tag": "t-later", "revision": "emergence-app-p2"})
    return record.plus(id="later", plan=plan, deploy=None, revisions=None, moves=())


# -- the index


def test_a_person_who_goes_back_to_a_revision_by_name_makes_it_the_active_one() -> None:
    moves = (*ROLLED_BACK.moves, Move(at=at(60), split=pinned(("socle", 100)), because="by hand"))
    by_hand = ROLLED_BACK.plus(moves=moves, revisions=(Revision(name="socle", ready=True, percent=100),))
    assert statuses(index(BEFORE, by_hand)) == ["↩️ Rolled back", "⏸️ Archived", "✅ Active (100%)"]
    assert "socle" in documents.report(by_hand, "fr").decode().partition("## Rollback")[2]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (PROMOTED, ["✅ Active (100%)", "⏸️ Archived", "⏸️ Archived"]),
        (ROLLED_BACK, ["↩️ Rolled back", "✅ Active (100%)", "⏸️ Archived"]),
        (BUILD_FAILED, ["❌ Failed", "✅ Active (100%)", "⏸️ Archived"]),
        (HELD, ["✋ Held (10%)", "✅ Active (100%)", "⏸️ Archived"]),
        (KILLED, ["⚠️ Interrupted", "✅ Active (100%)", "⏸️ Archived"]),
    ],
    ids=lambda value: value.state if isinstance(value, Record) else "",
)
def test_only_a_promotion_demotes_the_active_row(record: Record, expected: list[str]) -> None:
    assert statuses(index(BEFORE, record)) == expected


def test_all_rows_that_claim_to_be_active_are_demoted() -> None:
    assert statuses(index(BEFORE.replace("⏸️ Archived", "✅ Active (100 %)"), PROMOTED)) == ["✅ Active (100%)", "⏸️ Archived", "⏸️ Archived"]


def test_a_held_release_that_is_promoted_later_keeps_its_row() -> None:
    assert index(index(BEFORE, HELD), PROMOTED) == index(BEFORE, PROMOTED)


def test_a_release_that_is_rolled_back_after_its_promotion_gives_the_title_back() -> None:
    undone = Move(at=at(60), split=pinned((OLD, 100)), because="by hand")
    back = PROMOTED.plus(state="RolledBack", revisions=None, moves=(*CANARY_MOVES, undone))
    assert statuses(index(index(BEFORE, PROMOTED), back)) == ["↩️ Rolled back", "✅ Active (100%)", "⏸️ Archived"]


def test_an_old_record_rendered_again_does_not_demote_what_came_after_it() -> None:
    today = index(index(BEFORE, PROMOTED), later(PROMOTED))
    assert statuses(today) == ["✅ Active (100%)", "⏸️ Archived", "⏸️ Archived", "⏸️ Archived"]
    assert index(today, PROMOTED) == today


def test_a_description_that_somebody_mended_stays() -> None:
    mended = index(BEFORE, PROMOTED).replace("[Phase P1 - Enrichissement mémoire](x.md)", "better words")
    assert "better words" in index(mended, PROMOTED)
    assert index(mended, PROMOTED) == mended


def test_a_table_that_goes_from_old_to_new_gets_its_row_at_the_end() -> None:
    old = HEAD + "| 2025-10-01 | `a` | `t1` | A | ⏸️ Archived |\n| 2025-10-02 | `b` | `t2` | B | ✅ Active (100%) |\n\ntext\n"
    assert statuses(index(old, PROMOTED)) == ["⏸️ Archived", "⏸️ Archived", "✅ Active (100%)"]


def test_a_table_with_other_columns_keeps_them() -> None:
    old = "Date | Tag | Owner | Commit | By | Report | Status\n-|-|-|-|-|-|-\n2025-10-01 | x | FG | abc | Y | - | live\n"
    row = "| 2025-10-09 | deploy-p1-20251009-140211 |  | 4bde612 | Codex (cloud) | [x.md](x.md) | ✅ Active (100%) |"
    assert row in index(old, PROMOTED)


def test_a_table_in_fenced_code_is_no_index() -> None:
    old = f"# Index\n\n```\n{BEFORE}```\n"
    assert index(old, PROMOTED).startswith(old)


# -- the journal and the synchronisation page


def test_a_journal_entry_of_a_release_that_goes_on_is_written_again_in_its_place() -> None:
    before = "# J\n\n## [2025-10-08 10:00] - Agent: X\n\ntext\n"
    held = documents.journal(before.encode(), HELD, "fr")
    then = documents.journal(held, later(PROMOTED), "fr")
    promoted = documents.journal(then, PROMOTED, "fr").decode()
    assert promoted.count("<!-- relais:") == 2
    assert promoted.index("relais: later") < promoted.index(f"relais: {PROMOTED.id}") < promoted.index("2025-10-08 10:00")


def test_a_mark_under_the_title_does_not_make_the_whole_file_the_entry() -> None:
    before = f"# J\n\ntext\n<!-- relais: {PROMOTED.id} -->\n\n## 2025-10-08 - Old (X)\n\nkept\n"
    after = documents.journal(before.encode(), PROMOTED, "fr").decode()
    assert "kept" in after
    assert "text" in after


def test_other_fields_and_the_fields_of_other_sections_stay() -> None:
    before = "## Codex (cloud)\n- **Statut** : old\n  - **Next** : nested\n- **Autre** : x\n\n## Autres\n- **Statut** : theirs\n"
    after = documents.sync(before.encode(), PROMOTED, "fr", "Codex (cloud)").decode()
    assert "- **Autre** : x\n\n## Autres\n- **Statut** : theirs\n" in after
    assert "old" not in after


def test_a_bare_field_with_text_owns_no_list_below_it() -> None:
    before = "## Codex (cloud)\n\n**Statut** : old\n\n- **Autre** : x\n- kept\n\n**Next** :\n\n1. old\n2. older\n"
    after = documents.sync(before.encode(), PROMOTED, "fr", "Codex (cloud)").decode()
    assert "- **Autre** : x\n- kept\n\n**Next** :\n1. Monitoring" in after
    assert "old" not in after


# -- the tag file


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b"IMAGE_TAG=t-2\n"),
        (b"IMAGE_TAG=t-1\n", b"IMAGE_TAG=t-2\n"),
        (b"IMAGE_TAG=t-1", b"IMAGE_TAG=t-2"),
        (b"IMAGE_TAG=t-1\r\n", b"IMAGE_TAG=t-2\r\n"),
        (b"t-1\n", b"t-2\n"),
        (b"\xef\xbb\xbft-1", b"\xef\xbb\xbft-2"),
        (b'export IMAGE_TAG="t-1"  # now\nB=2\n', b'export IMAGE_TAG="t-2"  # now\nB=2\n'),
        (b"B=2", b"B=2\nIMAGE_TAG=t-2"),
    ],
)
def test_the_tag_file_keeps_its_form(old: bytes, new: bytes) -> None:
    assert documents.build_tag(old, "t-2") == new


# -- names


def test_the_report_is_named_by_the_day_on_the_teams_clock() -> None:
    night = PLAN.model_copy(update={"started": at(600)})  # 22:02 UTC is the next day in Paris
    paths = documents.paths(PROMOTED.plus(plan=night), lambda _: False)
    assert paths["report"] == "docs/deployments/2025-10-10-deploy-p1-memory.md"
    assert paths == {**paths, "index": "docs/deployments/README.md", "sync": "AGENT_SYNC.md", "journal": "docs/passation.md"}


def test_two_releases_of_one_day_get_two_reports() -> None:
    taken = {"docs/deployments/2025-10-09-deploy-p1-memory.md", "docs/deployments/2025-10-09-deploy-p1-memory-2.md"}
    assert documents.paths(PROMOTED, taken.__contains__)["report"].endswith("p1-memory-3.md")


def test_a_record_without_a_plan_names_no_documents() -> None:
    assert documents.paths(PROMOTED.plus(plan=None), lambda _: False) == {}


def test_a_report_says_whose_it_is() -> None:
    assert documents.release_of(documents.report(PROMOTED, "fr")) == PROMOTED.id
    assert documents.release_of(b"# somebody's own") == ""


# -- text that stays in its place

EVIL = "a | b `c \\| <!-- <img src=x> ```\n# not a heading\r\n| x | [y](http://evil)\x1b[31m \ud800"


def evil() -> Record:
    commit = Commit(sha="e" * 40, subject=EVIL)
    source = SOURCE.model_copy(update={"commit": commit, "since": (commit,)})
    lines = tuple(line.model_copy(update={"what": EVIL, "before": EVIL, "after": EVIL}) for line in PLAN.lines)
    plan = PLAN.model_copy(update={"title": EVIL, "changes": (), "by": EVIL, "source": source, "lines": lines})
    revisions = tuple(r.model_copy(update={"tag": EVIL, "message": EVIL, "ready": False}) for r in REVISIONS)
    return AT_ONCE.plus(plan=plan, revisions=revisions, metrics={EVIL: EVIL})


def rows(page: str) -> list[int]:
    """How many cells each row of each table has, as a Markdown parser sees it."""
    counts: list[int] = []
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        if token.type == "tr_open":
            counts.append(0)
        elif token.type in ("td_open", "th_open"):
            counts[-1] += 1
    return counts


def headings(page: str) -> int:
    return sum(token.type == "heading_open" for token in MarkdownIt("commonmark").parse(page))


def test_no_text_of_a_commit_breaks_a_table_or_makes_a_heading_html_or_a_link() -> None:
    report, plain = documents.report(evil(), "en").decode(), documents.report(AT_ONCE, "en").decode()
    assert rows(report) == rows(plain)
    html = MarkdownIt("commonmark").enable("table").render(report)
    assert "<img" not in html
    assert "evil\">" not in html
    assert html.count("<h1>") == 1


def test_no_title_breaks_the_index_or_the_plan_page() -> None:
    record = evil()
    assert record.plan
    assert rows(index(BEFORE, record)) == [5, 5, 5, 5]
    assert set(rows(documents.plan_page(record.plan))) <= {2, 4}
    assert headings(documents.plan_page(record.plan)) == headings(documents.plan_page(PLAN))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a`b", r"a\`b"),
        ("`a<b>`", "`a<b>`"),
        ("<b>", r"\<b>"),
        ("[x](y)", r"[x]\(y)"),
        ("a\nb", "a b"),
        (r"a\`", r"a\\\`"),
        ("P1 - été", "P1 - été"),
    ],
)
def test_inline_text_stays_text(text: str, shown: str) -> None:
    assert inline(text) == shown


def test_code_and_blocks_hold_any_backticks() -> None:
    assert code("a`b") == "`` a`b ``"
    assert block("```\nx\n```").startswith("````\n")
    assert cell(r"a \| b | c") == r"a \\\| b \| c"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (192, "3 min 12 s"), (7199, "2 h 00 min")]
)
def test_durations_read_well(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(("count", "shown"), [(0, "0 B"), (999, "999 B"), (183_000_000, "183 MB"), (1_912_345_678, "1.9 GB")])
def test_sizes_read_well(count: int, shown: str) -> None:
    assert size(count) == shown
