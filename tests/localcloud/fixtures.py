"""What tests of the local cloud start: a small test image in the session's registry, a local cloud for a file or for one test."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from clouds import Cloud, push


@pytest.fixture(scope="session")
def web_image(registry: str, base_image: str, engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The test image, pushed: its name by tag."""
    context, name = tmp_path_factory.mktemp("context"), f"{registry}/test-project/app/web"
    shutil.copy(Path(__file__).parent / "app" / "app.py", context)
    (context / "Dockerfile").write_text(f'FROM {base_image}\nCOPY app.py /app.py\nCMD ["python3", "-u", "/app.py"]\n')
    engine.images.build(path=str(context), tag=f"{name}:t1", rm=True, forcerm=True)
    push(f"{name}:t1")
    yield f"{name}:t1"
    for image in engine.images.list(name=name):  # by its names here alone: another session may have the same image by others
        for reference in [*image.tags, *image.attrs.get("RepoDigests", [])]:
            if reference.startswith(name):
                with contextlib.suppress(docker.errors.APIError):
                    engine.images.remove(reference, force=True)


@pytest.fixture(scope="module")
def cloud(registry: str, web_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A local cloud for the tests of one file: start-up budget 3 s."""
    made = Cloud(tmp_path_factory.mktemp("run") / "state", registry, web_image, ("--startup-seconds", "3"))
    made.start()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def own_cloud(registry: str, web_image: str, tmp_path: Path) -> Iterator[Callable[..., Cloud]]:
    """Starts a local cloud for one test alone, with options of its own."""
    made: list[Cloud] = []

    def start(*options: str) -> Cloud:
        made.append(Cloud(tmp_path / f"state{len(made)}", registry, web_image, ("--startup-seconds", "3", *options)))
        made[-1].start()
        return made[-1]

    try:
        yield start
    finally:
        for each in made:
            each.end()
