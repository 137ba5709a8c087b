"""The plan by difference: what is merged, what blocks, and the word that lets it through."""

from datetime import UTC, datetime
from typing import Any

import pytest

from relais import plan, rollout
from relais.config import Deploy, ReleaseFile
from relais.errors import BadInput
from relais.model import LATEST, App, Commit, Plan, Record, ServiceName, Serving, Share, Source, Spec, Split, Stable, Target, Wheel

OLD = Spec(
    env={"LOG_LEVEL": "f1", "PYTHONPATH": "f2"}, plain={"LOG_LEVEL": "INFO"}, secrets={"KEY": "key:3"},
    settings={"memory": "2Gi", "cpu": "2", "timeout": "300s", "max_instances": "10", "service_account": "app@p.iam.gserviceaccount.com"},
)  # fmt: skip


def lines(new: Spec, *allow: str) -> dict[str, tuple[str, bool]]:
    return {line.what: (line.kind, line.blocks) for line in plan.difference(OLD, new, allow)}


def test_what_is_the_same_is_kept_and_blocks_nothing() -> None:
    assert {kind for kind, _ in lines(OLD).values()} == {"kept"}


def test_the_same_amount_in_another_spelling_is_kept() -> None:
    new = OLD.model_copy(update={"settings": {**OLD.settings, "memory": "2048Mi", "cpu": "2000m"}})
    assert lines(new)["memory"] == ("kept", False)
    assert lines(new)["cpu"] == ("kept", False)


@pytest.mark.parametrize(("what", "value"), [("memory", "512Mi"), ("cpu", "1"), ("timeout", "60s"), ("max_instances", "2")])
def test_a_lower_limit_than_what_serves_blocks_unless_it_is_allowed_by_name(what: str, value: str) -> None:
    new = OLD.model_copy(update={"settings": {**OLD.settings, what: value}})
    assert lines(new)[what] == ("lowered", True)
    assert lines(new, f"lower {what}")[what] == ("lowered", False)


def test_a_removed_variable_blocks_unless_it_is_allowed_by_name() -> None:
    new = OLD.model_copy(update={"env": {"LOG_LEVEL": "f1"}})
    assert lines(new)["env PYTHONPATH"] == ("removed", True)
    assert lines(new, "remove env PYTHONPATH")["env PYTHONPATH"] == ("removed", False)


def test_a_removed_secret_blocks_unless_it_is_allowed_by_name() -> None:
    new = OLD.model_copy(update={"secrets": {}})
    assert lines(new)["secret KEY"] == ("removed", True)


def test_values_are_shown_only_for_variables_that_are_declared_plain() -> None:
    new = OLD.model_copy(update={"env": {"LOG_LEVEL": "f9", "PYTHONPATH": "f8"}, "plain": {"LOG_LEVEL": "DEBUG"}})
    shown = {line.what: str(line) for line in plan.difference(OLD, new, ())}
    assert shown["env LOG_LEVEL"] == "changed env LOG_LEVEL: INFO -> DEBUG"
    assert shown["env PYTHONPATH"] == "changed env PYTHONPATH"


def service(**changes: object) -> Serving:
    name = ServiceName(project="emergence-469005", region="europe-west1", name="app")
    split = Split(shares=(Share(revision="app-old", percent=100),))
    return Serving(service=name, desired=(Target(revision="app-old", percent=100),), split=split, public=True).model_copy(update=changes)


def notes(serving: Serving, finish: str = "as-before") -> str:
    return "\n".join(str(line) for line in plan.traffic(serving, "app-new", (10,), finish))


def test_a_pin_is_named_with_what_the_release_will_do_about_it() -> None:
    assert "traffic is pinned to app-old 100 %: a plain deploy would get 0 %; this release moves it by name" in notes(service())


def test_the_plan_says_what_traffic_points_to_after_100_percent() -> None:
    assert "stays pinned to the candidate" in notes(service())
    assert f"points to {LATEST}" in notes(service(), "latest")


def test_a_bad_candidate_that_was_left_as_the_newest_revision_is_named() -> None:
    assert "the newest revision, app-bad, serves nobody; settings come from what serves" in notes(service(latest_created="app-bad"))


def test_the_first_release_says_that_there_is_no_stable_revision_and_no_canary() -> None:
    said = notes(service(exists=False, split=Split()))
    assert "there is no stable revision to compare with or to go back to, so there is no canary" in said


def test_a_change_of_who_may_call_the_service_blocks_unless_it_is_allowed_by_name() -> None:
    assert plan.access(service(), False, ()).blocks
    assert not plan.access(service(), False, ["change access"]).blocks
    assert plan.access(service(), "keep", ()).kind == "kept"


def test_a_revision_name_that_is_taken_gets_a_number_and_stays_below_64_characters() -> None:
    assert plan.free_name("app-p1", ()) == "app-p1"
    assert plan.free_name("app-p1", ("app-p1", "app-p1-2")) == "app-p1-3"
    assert len(plan.free_name("a" * 63, ("a" * 63,))) == 63


@pytest.mark.parametrize(
    ("over", "where"),
    [
        pytest.param({"deploy": {"revision_suffix": "{slug}"}}, "deploy.revision_suffix", id="a revision of 67 characters"),
        pytest.param({"release": {"tag": "{service}-{slug}-{commit}-{commit}"}}, "release.tag", id="a tag of 149 characters"),
    ],
)
def test_a_name_that_the_title_makes_too_long_is_refused_before_anything_is_built(over: dict[str, Any], where: str) -> None:
    place = {"service": "a-service-of-26-characters", "project": "emergence-469005", "region": "europe-west1", "repository": "app"}
    commit = Commit(sha="0123456789abcdef0123456789abcdef01234567", subject="A subject with so many words that its slug is long")
    app, source = App(root="/", release={**place, **over}), Source(root="/", commit=commit)
    stable = Stable(serving=service(), after=OLD, registry_uri="localhost:5000/p/app")
    record = Record(id="r-1", app="/", started=datetime(2025, 10, 9, 8, 30, tzinfo=UTC))
    with pytest.raises(BadInput) as refused:
        plan.draw(app, source, stable, (), (), record, "FG", {})
    assert refused.value.where == where


def drawn(serving: Serving) -> Plan:
    """The plan of a release of `app`."""
    place = {"service": "app", "project": "emergence-469005", "region": "europe-west1", "repository": "app"}
    source = Source(root="/", commit=Commit(sha="0123456789abcdef0123456789abcdef01234567"))
    stable = Stable(serving=serving, after=OLD, registry_uri="localhost:5000/p/app")
    record = Record(id="20261124-220000-3fa9c2", app="/", started=datetime(2026, 11, 24, tzinfo=UTC), run="run-1")
    return plan.draw(App(root="/", release=place), source, stable, (), (), record, "FG", {})


def test_a_run_that_is_retried_drives_at_the_next_epoch_so_that_its_frozen_first_attempt_moves_nothing() -> None:
    first = drawn(service())
    begun = rollout.begin(service(), first, "sha256:1", first.started, {})
    again = drawn(service(annotations=begun.annotations))
    assert (first.wheel, again.wheel) == (Wheel(owner="run-1"), Wheel(owner="run-1", epoch=2))


ASKED: list[tuple[dict[str, Any], str, bool]] = [
    ({"build": False}, "build: false", True),
    ({"build": {"target": "runtime"}}, "build.target", True),
    ({"build": {"secrets": {"token": "npm-token"}}}, "build.secrets", True),
    ({"canary": {"approve": True}}, "canary.approve", True),
    ({"hooks": {"before_build": "true"}}, "hooks", True),
    ({"verify": {"openapi": "/openapi.json"}}, "openapi", False),
    ({"canary": {"evidence": "monitoring"}}, "canary.evidence", False),
    ({"validate": {"on_worse": "rollback"}}, "validate.on_worse", False),
    ({"deploy": {"env": {"plain_secrets": "forbid"}}}, "plain_secrets", False),
    ({"escalate": {"notify": ["slack"]}}, "escalate.notify", False),
]


@pytest.mark.parametrize(("over", "what", "blocks"), ASKED, ids=[what for _, what, _ in ASKED])
def test_what_this_version_does_not_do_is_named_and_blocks_where_safety_rests_on_it(over: dict[str, Any], what: str, blocks: bool) -> None:
    place = {"service": "app", "project": "emergence-469005", "region": "europe-west1", "repository": "app"}
    (line,) = plan.unsupported(ReleaseFile.model_validate({**place, **over}))
    assert (what in line.what, line.blocks) == (True, blocks)
    assert not list(plan.unsupported(ReleaseFile.model_validate(place)))


def test_a_change_of_ingress_and_a_lower_limit_of_the_service_block_unless_they_are_allowed_by_name() -> None:
    serving = service(ingress="all", scaling={"max_instances": 10})
    asked = {"ingress": "internal", "scaling": {"max_instances": "5"}}
    lines = {line.what: line for line in plan.service_settings(serving, Deploy.model_validate(asked))}
    assert [(line.before, line.after, line.blocks) for line in lines.values()] == [("all", "internal", True), ("10", "5", True)]
    allowed = Deploy.model_validate({**asked, "allow": ["change ingress", "lower max_instances"]})
    assert not any(line.blocks for line in plan.service_settings(serving, allowed))


@pytest.mark.parametrize(
    ("public", "now", "blocks"), [(True, False, False), ("keep", True, False), ("keep", False, True), (False, True, True)]
)
def test_a_private_service_that_cannot_be_verified_is_told_before_anything_is_built(public: Any, now: bool, blocks: bool) -> None:
    place = {"service": "app", "project": "emergence-469005", "region": "europe-west1", "repository": "app"}
    file = ReleaseFile.model_validate({**place, "deploy": {"public": public}, "verify": {"http": ["/"]}})
    assert [line.blocks for line in plan.unseen(service(public=now), file)] == [True] * blocks
