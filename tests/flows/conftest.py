"""Releases on real parts: a small team of its own for every test, on the session's cloud, registry, Engine and Prefect server."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from team import HERE, Clients, Team

from relais.model import ServiceName


@pytest.fixture(scope="session")
def shop_image(registry: str, base_image: str, engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of the revisions that people deploy by hand, in the registry: its name by digest."""
    context, name = tmp_path_factory.mktemp("shop"), f"{registry}/shop-by-hand/app/shop"
    shutil.copy(HERE / "app" / "app.py", context)
    (context / "Dockerfile").write_text(f'FROM {base_image}\nCOPY app.py /app.py\nCMD ["python3", "-u", "/app.py"]\n')
    engine.images.build(path=str(context), tag=f"{name}:1", rm=True, forcerm=True)
    pushed = list(engine.images.push(name, tag="1", stream=True, decode=True))
    digests = [item["aux"]["Digest"] for item in pushed if "aux" in item]
    assert digests, pushed
    yield f"{name}@{digests[-1]}"
    for image in engine.images.list():  # what the releases built and tagged for this session's registry
        for tag in image.tags:
            if tag.startswith(f"{registry}/"):
                with contextlib.suppress(docker.errors.APIError):
                    engine.images.remove(tag, force=True)


@pytest.fixture
def environment(cloud: "object", prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a release finds in its environment: the local cloud, a home of its own, the project's tools first; gives Prefect's API."""
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", cloud.host)  # type: ignore[attr-defined]
    monkeypatch.setenv("RELAIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RELAIS_BY", "Tester")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return prefect_server


@pytest.fixture
def team(environment: str, cloud: "object", shop_image: str, base_image: str, tmp_path: Path) -> Team:  # noqa: ARG001
    """A team with a repository, its remote, and a service name that no other test uses; nothing serves yet."""
    made = Team(tmp_path / "shop", Clients(cloud.host), shop_image, base_image, tmp_path / "home")  # type: ignore[attr-defined]
    made.lay_out()
    return made


@pytest.fixture
def who_serves(team: Team) -> Callable[[ServiceName], dict[str, int]]:
    """Revision name -> percent of a service, as it says once it has settled."""

    def asked(service: ServiceName) -> dict[str, int]:
        assert service == team.service
        return team.who_serves()

    return asked
