"""The part of a document that whoever releases must have read."""

import pytest

from relais.excerpt import excerpt

PAGE = "# Sync\n\n## Claude Code\none\n```\n## not a heading\n```\n### Session\ntwo\n\n## Codex (cloud)\nthree\n"
JOURNAL = "# Passation\n\n## 2025-10-09\nnew\n\n## 2025-10-08\nolder\n\n## 2025-10-07\noldest\n"


def test_a_section_ends_at_the_next_heading_of_its_level_and_fenced_code_is_no_heading() -> None:
    assert excerpt(PAGE, "Claude Code") == "## Claude Code\none\n```\n## not a heading\n```\n### Session\ntwo"


def test_the_newest_entries_of_a_journal_are_its_first() -> None:
    assert excerpt(JOURNAL, None, 2) == "## 2025-10-09\nnew\n\n## 2025-10-08\nolder"


def test_a_missing_section_is_told_with_the_nearest() -> None:
    with pytest.raises(LookupError, match="there is no section 'Codex cloud'; the nearest is 'Codex \\(cloud\\)'"):
        excerpt(PAGE, "Codex cloud")
