"""Noise: the requests that the judge leaves out."""

from typing import Any

import pytest

from relais.config import Noise

ROBOT = (404, "/wp-login.php", "masscan/1.3")
RULES: list[tuple[dict[str, Any], bool]] = [
    ({"status": 404}, True),
    ({"status": 500}, False),
    ({"path": "wp-login"}, True),
    ({"path": r"/\.php$/"}, True),
    ({"path": r"/^php/"}, False),
    ({"path": "/.php$/x"}, False),
    ({"agent": "/(?i)MASSCAN/"}, True),
    ({"agent": "curl"}, False),
    ({"status": 404, "path": "wp-login", "agent": "masscan"}, True),
    ({"status": 404, "path": "/api/"}, False),
]


@pytest.mark.parametrize(("rule", "covered"), RULES, ids=[str(rule) for rule, _ in RULES])
def test_a_rule_covers_a_request_when_all_that_it_names_fits_by_text_or_by_regular_expression(rule: dict[str, Any], covered: bool) -> None:
    assert Noise.model_validate(rule).covers(*ROBOT) is covered
