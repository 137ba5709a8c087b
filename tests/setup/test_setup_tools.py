"""The machine's part: what is missing is named with what to install; the base image holds what the sample imports."""

from pathlib import Path

import docker
import pytest

from setup import base, engine, tools
from setup import engine as machine
from setup.clone import Clone
from setup.trouble import Trouble


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def step(clone: Clone, name: str) -> bool:
    return next(one for one in tools.machine_steps(clone, chromium=True) if one.name == name).make_so()


def test_without_a_package_manager_the_missing_programs_are_named(clone: Clone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Trouble) as trouble:
        step(clone, "packages")
    assert all(name in trouble.value.what for name in ("docker-registry", "nodejs", "npm", "chromium"))
    assert "own package manager" in trouble.value.remedy


def test_an_engine_elsewhere_that_does_not_answer_is_not_replaced_by_a_local_one(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(Trouble) as trouble:
        step(clone, "engine")
    assert "tcp://127.0.0.1:9" in trouble.value.what
    assert "DOCKER_HOST" in trouble.value.remedy


def test_without_an_engine_or_dockerd_it_says_what_to_install(clone: Clone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Trouble) as trouble:
        step(clone, "engine")
    assert "Install a Docker Engine" in trouble.value.remedy


def test_the_names_of_the_base_image_follow_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = base.image_name()
    for name in ("base.packages", "base.Dockerfile"):
        (tmp_path / name).write_bytes((Path(base.__file__).parent / name).read_bytes())
    monkeypatch.setattr(base, "_HERE", tmp_path)
    assert base.image_name() == before
    with (tmp_path / "base.packages").open("a") as packages:
        packages.write("python3-jinja2\n")
    assert base.image_name() != before


def test_the_base_image_runs_what_the_sample_imports(base_image: str, engine: docker.DockerClient) -> None:
    text = "import starlette, uvicorn, prometheus_client, websockets, yaml, anyio, http.server, json, ssl, sqlite3, os"
    said = engine.containers.run(base_image, ["python3", "-c", f"{text}; print(os.environ['LANG'])"], remove=True, network_mode="none")
    assert said == b"C.UTF-8\n"
    image = engine.images.get(base_image)
    assert image.attrs["Architecture"] == "amd64"
    assert image.attrs["Size"] < 200_000_000


def test_a_base_image_that_is_there_is_not_made_again(base_image: str, clone: Clone) -> None:
    assert engine.has_image(base_image)
    assert base.ensure(clone, lambda: pytest.fail("nothing is to be installed")) is False


def test_clean_removes_the_names_that_images_have_in_the_clones_registry(engine: docker.DockerClient, base_image: str) -> None:
    name = "localhost:9/project/app/service"
    engine.images.get(base_image).tag(name, "t1")
    assert machine.remove_tags("localhost:9") == 1
    assert not engine.images.list(name=name)
    assert engine.images.get(base_image)
