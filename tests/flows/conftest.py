"""Releases on real parts: a small team of its own for every test, on the session's cloud, registry, Engine and Prefect server."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    for image in engine.images.list():  # what was built and tagged for this session's registry
        for tag in image.tags:
            if tag.startswith(f"{registry}/"):
                with contextlib.suppress(docker.errors.APIError):
                    engine.images.remove(tag, force=True)


OpenShop = Callable[[Path, pytest.MonkeyPatch], Team]
_opened: list[Team] = []


@pytest.fixture(scope="module", autouse=True)
def shut() -> Iterator[None]:
    """No service outlives its module: with two followers a container, an Engine would run out of inotify watches."""
    yield
    while _opened:
        _opened.pop().close()


@pytest.fixture(scope="session")
def open_shop(cloud: Any, prefect_server: str, shop_image: str, base_image: str) -> OpenShop:
    """Gives a team in a folder, with the environment that a release finds: the cloud, a home of its own, the project's tools first."""
    clients = Clients(cloud.host)

    def opened(folder: Path, environment: pytest.MonkeyPatch) -> Team:
        environment.setenv("CLOUDRUN_EMULATOR_HOST", cloud.host)
        environment.setenv("RELAIS_HOME", str(folder / "home"))
        environment.setenv("RELAIS_BY", "Tester")
        environment.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        made = Team(folder / "shop", clients, shop_image, base_image, folder / "home", prefect_server)
        _opened.append(made)
        made.lay_out()
        return made

    return opened


@pytest.fixture
def environment(team: Team) -> str:
    """The environment is set for a release; gives Prefect's API."""
    return team.api


@pytest.fixture
def team(open_shop: OpenShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """A team with a repository, its remote, and a service name that no other test uses; nothing serves yet."""
    made = open_shop(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def who_serves(team: Team) -> Callable[[ServiceName], dict[str, int]]:
    """Revision name -> percent of a service, as it says once it has settled."""

    def asked(service: ServiceName) -> dict[str, int]:
        assert service == team.service
        return team.who_serves()

    return asked
