"""What an update makes of a service: which fields it takes, and whether a revision is due; without a server."""

from typing import Any

import pytest
from clouds import latest, pinned
from google.cloud import run_v2

from localcloud.naming import ServiceName
from localcloud.run import changes, defaults
from localcloud.wire import Refusal

NAME = ServiceName("p", "r", "app")


def completed(service: run_v2.Service) -> run_v2.Service:
    service.name = str(NAME)
    defaults.fill_service(service)
    return service


def current() -> run_v2.Service:
    made = changes.created(
        NAME,
        run_v2.Service(
            description="old",
            labels={"team": "a"},
            annotations={"one": "1", "two": "2"},
            template={
                "revision": "app-one",
                "containers": [{"image": "r/app:1", "env": [{"name": "A", "value": "1"}]}],
                "scaling": {"max_instance_count": 5},
            },
            traffic=[pinned("app-one", 90), latest(10, "next")],
            scaling={"min_instance_count": 1, "max_instance_count": 9},
        ),
        "somebody@example.org",
    )
    return completed(changes.stamped(made, "somebody@example.org"))


def updated(*paths: str, **wanted: Any) -> run_v2.Service:
    return completed(changes.merged(current(), run_v2.Service(wanted), paths))


@pytest.mark.parametrize(
    ("paths", "wanted", "changed"),
    [
        pytest.param(["annotations"], {"annotations": {"three": "3"}}, {"annotations": {"three": "3"}}, id="a map, as a whole"),
        pytest.param(["annotations"], {}, {"annotations": {}}, id="a map that is not given"),
        pytest.param(["description", "labels"], {"description": "new", "uid": "x"}, {"description": "new", "labels": {}}, id="two"),
        pytest.param(["traffic"], {}, {"traffic": [latest(100)]}, id="no traffic means LATEST"),
        pytest.param(["traffic"], {"traffic": [pinned("app-one", 100)]}, {"traffic": [pinned("app-one", 100)]}, id="traffic"),
        pytest.param(["invoker_iam_disabled"], {"invoker_iam_disabled": True}, {"invoker_iam_disabled": True}, id="public"),
        pytest.param(["custom_audiences"], {"custom_audiences": ["a"]}, {"custom_audiences": ["a"]}, id="audiences"),
        pytest.param(["scaling.max_instance_count"], {"scaling": {"max_instance_count": 3}}, {"scaling": (1, 3)}, id="a nested field"),
        pytest.param(["scaling"], {"scaling": {"max_instance_count": 3}}, {"scaling": (0, 3)}, id="a message, as a whole"),
        pytest.param(["uid", "etag", "generation", "conditions", "creator"], {"uid": "x", "generation": 7}, {}, id="output only"),
        pytest.param(["uri", "terminal_condition.state"], {"uri": "x"}, {}, id="output only, nested"),
    ],
)
def test_an_update_changes_what_its_mask_names_and_nothing_else(paths: list[str], wanted: dict[str, Any], changed: dict[str, Any]) -> None:
    before, after = current(), updated(*paths, **wanted)
    shown = {name: _shown(after, name) for name in changed}
    assert shown == changed
    for name in {"description", "labels", "annotations", "traffic", "scaling", "template", "invoker_iam_disabled"} - set(changed):
        assert getattr(after, name) == getattr(before, name)
    assert changes.same(after.template, before.template)


def _shown(service: run_v2.Service, name: str) -> Any:
    value = getattr(service, name)
    if name == "scaling":
        return value.min_instance_count, value.max_instance_count
    return dict(value) if name in ("annotations", "labels") else list(value) if name in ("traffic", "custom_audiences") else value


@pytest.mark.parametrize(
    ("paths", "template", "due"),
    [
        pytest.param(["template.containers"], {"containers": [{"image": "r/app:2"}]}, True, id="another image"),
        pytest.param(["template.scaling.max_instance_count"], {"scaling": {"max_instance_count": 6}}, True, id="another maximum"),
        pytest.param(["template.scaling.max_instance_count"], {"scaling": {"max_instance_count": 5}}, False, id="the same maximum"),
        pytest.param(["template.max_instance_request_concurrency"], {"max_instance_request_concurrency": 80}, False, id="the default"),
        pytest.param(["template.labels"], {"labels": {"a": "b"}}, True, id="a label of the template"),
        pytest.param(["template.revision"], {}, True, id="the name taken away"),
        pytest.param(["template.revision"], {"revision": "app-two"}, True, id="another name"),
    ],
)
def test_a_revision_is_due_when_the_template_is_another_after_its_defaults(paths: list[str], template: dict[str, Any], due: bool) -> None:
    after = updated(*paths, template=template)
    assert changes.same(after.template, current().template) is not due


@pytest.mark.parametrize("paths", [[], ["*"], ["*", "description"]])
def test_no_mask_and_a_star_mean_all_that_a_client_may_set(paths: list[str]) -> None:
    after = updated(*paths, description="new", template={"containers": [{"image": "r/app:2"}]}, uid="mine", creator="me")
    before = current()
    assert (after.description, dict(after.annotations), list(after.traffic)) == ("new", {}, [latest(100)])
    assert after.template.revision == ""
    assert (after.creator, after.etag == "", after.uid == "mine") == (before.creator, False, False)


@pytest.mark.parametrize(
    "path", ["nothing", "template.nothing", "scaling.minInstanceCount", "template.containers.image", "annotations.one", "uri.x", "", "a..b"]
)
def test_a_path_that_names_no_field_is_refused(path: str) -> None:
    with pytest.raises(Refusal, match=f"update_mask: '{path}'"):
        updated(path)


def test_what_the_service_tells_of_a_build_is_not_taken_from_a_client() -> None:
    container = {"image": "r/app:1", "build_info": {"function_target": "x"}}
    assert "build_info" not in updated("template", template={"containers": [container]}).template.containers[0]


def test_a_revision_has_what_its_template_says_and_who_asked_for_it() -> None:
    service = current()
    made = changes.revision(service, NAME, "app-one", "somebody@example.org")
    assert (made.name, made.service, made.creator) == (NAME.revision("app-one"), str(NAME), "somebody@example.org")
    assert list(made.containers) == list(service.template.containers)
    assert (made.scaling, made.timeout, made.reconciling) == (service.template.scaling, service.template.timeout, True)


def test_a_deleted_resource_tells_when_and_until_when() -> None:
    service = current()
    changes.deleted(service)
    assert (service.expire_time - service.delete_time).days in (29, 30)
