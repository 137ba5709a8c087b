"""Images built, known and pushed by the client, with the machine's real Engine and a real registry."""

import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from relais.clients.build_context import tarred
from relais.clients.docker import Built, Engine, Image, base_images, content_key, context_files, ensure_platform
from relais.clients.docker_errors import build_error, registry_error
from relais.errors import BadInput, Denied, Missing, RelaisError, StepFailed, Unavailable

LABEL = {"relais.tests.clients": secrets.token_hex(4)}
TAG = f"relais-clients-test:{LABEL['relais.tests.clients']}"
PASSWORDS = "ana:$2b$04$zh2HiPwDqK3UskGbMfzV/OL/F4cPVXTwXDiiZK9iNQOnWUXnXlGEi\n"  # let-me-in
Build = Callable[..., Built]


@pytest.fixture(scope="module")
def ours(engine: docker.DockerClient) -> Iterator[Engine]:
    """The client, and nothing of what these tests built left behind."""
    yield Engine.connect()
    name, value = next(iter(LABEL.items()))
    for image in engine.images.list(all=True, filters={"label": f"{name}={value}"}):
        for tag in image.tags or [str(image.id)]:
            engine.images.remove(tag, force=True)


@pytest.fixture
def build(ours: Engine, tmp_path: Path, base_image: str) -> Build:
    """Build a Dockerfile, where BASE stands for an image with a shell, from files of the test's directory."""

    def builds(
        dockerfile: str, *, lines: list[str] | None = None, platform: str = "linux/amd64", timeout: float = 120, **args: str
    ) -> Built:
        (tmp_path / "Dockerfile").write_text(dockerfile.replace("BASE", base_image))
        on_line = (lines if lines is not None else list[str]()).append
        return ours.build(tmp_path, "Dockerfile", TAG, platform=platform, args=args, labels=LABEL, timeout=timeout, on_line=on_line)

    return builds


def unlike() -> str:
    """So that no step comes from the cache of an earlier run."""
    return secrets.token_hex(6)


# -- the Engine ----------------------------------------------------------------------------------------------------------


def test_the_engine_says_what_it_is(ours: Engine) -> None:
    info = ours.info()
    assert info.version
    assert info.memory > 100e6
    assert info.architecture in ("linux/amd64", "linux/arm64")
    assert info.free is None or info.free > 0
    assert ours.builder in ("buildx", "BuildKit by the Engine's API")


def test_an_engine_that_is_not_there_is_a_refusal_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(Denied, match=r"no Docker Engine answers .*\n  -> start Docker"):
        Engine.connect()


@pytest.fixture
def way_to_the_engine(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A socket that leads to the Engine until it is cut."""
    path, ends = tmp_path / "way.sock", list[socket.socket]()

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, far = listening.accept()[0], socket.socket(socket.AF_UNIX)
                far.connect("/var/run/docker.sock")
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    def cut() -> None:
        for end in (listening, *ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        yield f"unix://{path}", cut
        cut()


def test_an_engine_that_goes_away_is_an_outage_also_in_the_middle_of_a_build(
    ours: Engine, way_to_the_engine: tuple[str, Callable[[], None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base_image: str
) -> None:
    way, cut = way_to_the_engine
    monkeypatch.setenv("DOCKER_HOST", way)
    engine = Engine.connect()
    assert engine.info().version == ours.info().version
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo begun; sleep 300 # {unlike()}\n")

    def cut_once_begun(line: str) -> None:
        if line.endswith(" begun"):
            cut()

    with pytest.raises(Unavailable, match="the Docker Engine does not answer"):
        engine.build(tmp_path, "Dockerfile", TAG, platform="linux/amd64", args={}, labels=LABEL, timeout=60, on_line=cut_once_begun)
    with pytest.raises(Unavailable, match="the Docker Engine does not answer"):
        engine.info()


# -- build ---------------------------------------------------------------------------------------------------------------


def test_an_image_is_built_from_its_context_and_told_line_by_line(build: Build, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x" * 1000)
    lines: list[str] = []
    built = build(f"FROM BASE\nARG WHO\nCOPY app.py /app/\nRUN echo hello $WHO {unlike()} && wc -c /app/app.py\n", lines=lines, WHO="Ana")
    assert built.platform == "linux/amd64"
    assert built.size == sum(layer.size for layer in built.layers)
    assert [layer.size for layer in built.layers] == sorted((layer.size for layer in built.layers), reverse=True)
    assert any(layer.created_by == "COPY app.py /app/" and layer.size == 1000 for layer in built.layers)
    assert any(line.endswith("1000 /app/app.py") for line in lines)
    assert any("hello Ana" in line for line in lines)
    assert lines[0] == f"building with {built.builder}"
    assert built.log == "\n".join(lines)
    assert built.log_tail in built.log


def test_lines_come_while_the_step_runs(ours: Engine, tmp_path: Path, base_image: str) -> None:
    heard: dict[str, float] = {}
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo first {unlike()}; sleep 2; echo second\n")

    def hear(line: str) -> None:
        heard.update({word: time.monotonic() for word in ("first", "second") if line.split()[1:2] == [word]})

    ours.build(tmp_path, "Dockerfile", TAG, platform="linux/amd64", args={}, labels=LABEL, timeout=60, on_line=hear)
    assert heard["second"] - heard["first"] > 1.5


def test_what_was_built_before_comes_from_the_cache_whenever_the_files_were_written(build: Build, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    dockerfile = f"FROM BASE\nCOPY a.txt /\nRUN echo {unlike()}\n"
    first = build(dockerfile)
    os.utime(tmp_path / "a.txt", (1_000_000_000, 1_000_000_000))
    second = build(dockerfile)
    assert second.id == first.id
    assert second.cached_steps == 2


def test_buildkit_builds_so_a_cache_mount_works(build: Build) -> None:
    assert build(f"FROM BASE\nRUN --mount=type=cache,target=/cache echo {unlike()} > /cache/x\n").id


def test_labels_and_names_find_the_image_again(build: Build, ours: Engine) -> None:
    built, name = build("FROM BASE\nLABEL kind=found\n"), f"relais-clients-test:{unlike()}"
    ours.tag(built.id, name)
    found = ours.inspect(name)
    assert (found.id, found.platform, found.size) == (built.id, "linux/amd64", built.size)
    assert found.labels["kind"] == "found"
    assert built.id in [image.id for image in ours.find({**LABEL, "kind": "found"})]
    assert ours.find({"relais.tests.clients": "somebody else"}) == ()
    assert ours.image_id(name) == built.id
    ours.remove(name)
    ours.remove(name)
    assert ours.image_id(name) is None
    with pytest.raises(Missing):
        ours.inspect(name)


@pytest.mark.parametrize(
    ("dockerfile", "kind", "what", "where", "remedy"),
    [
        ("FROM BASE\nRUN echo 1; echo 2; exit 3\n", StepFailed, r"\[2/2\] RUN echo 1; .* exit code 3", "Dockerfile", "1\n  2"),
        ("FROM BASE\nRUNN x\n", BadInput, "unknown instruction: RUNN", "Dockerfile:2", "mend"),
        ("", BadInput, "empty", "Dockerfile", "FROM"),
        ("FROM BASE\nCOPY dist /app\n", StepFailed, "/dist is not in the build context", "COPY dist", ".dockerignore"),
        ("FROM https://no-such-image.invalid/x:1\n", BadInput, "https://no-such-image.invalid/x:1 is no name", "Dockerfile", "FROM"),
        ("FROM no-such-image.invalid/x:1\n", RelaisError, r"the base image no-such-image\.invalid/x:1", "Dockerfile", ""),
        ("FROM BASE\nRUN dd if=/dev/zero of=/dev/full bs=1 count=1\n", StepFailed, "the disk is full", "RUN dd", "docker image prune"),
    ],
    ids=["failing step", "bad instruction", "empty Dockerfile", "missing file", "address as base", "unreachable base", "full disk"],
)
def test_a_build_that_fails_says_what_where_and_what_to_do(
    build: Build, dockerfile: str, kind: type[RelaisError], what: str, where: str, remedy: str
) -> None:
    with pytest.raises(kind, match=what) as failed:
        build(dockerfile)
    assert where in failed.value.where
    assert remedy in failed.value.remedy


def test_a_missing_dockerfile_or_context_is_said_before_anything_is_sent(ours: Engine, tmp_path: Path) -> None:
    for context, what in ((tmp_path, "no such Dockerfile"), (tmp_path / "gone", "no such directory")):
        with pytest.raises(BadInput, match=what):
            ours.build(context, "Dockerfile", "x:1", platform="linux/amd64", args={}, labels={}, timeout=5, on_line=print)


def running(marker: str) -> bool:
    """Whether a process of this machine, where the Engine is too, has this word in its command line."""
    return any(marker.encode() in read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def gone(marker: str, within: float = 15) -> bool:
    deadline = time.monotonic() + within
    while running(marker):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_at_its_limit_a_build_is_ended_on_the_engine_too(build: Build) -> None:
    marker, lines, begun = unlike(), list[str](), time.monotonic()
    with pytest.raises(StepFailed, match="the build was not finished after 3 s"):
        build(f"FROM BASE\nRUN echo begun; sleep 300; echo {marker}\n", timeout=3, lines=lines)
    assert time.monotonic() - begun < 10
    assert any(line.endswith(" begun") for line in lines)
    assert gone(marker)


def test_an_interrupted_build_is_ended_on_the_engine_too(ours: Engine, tmp_path: Path, base_image: str) -> None:
    marker = unlike()
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo begun; sleep 300; echo {marker}\n")

    def interrupt(line: str) -> None:
        if line.endswith(" begun"):
            assert running(marker)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ours.build(tmp_path, "Dockerfile", "x:1", platform="linux/amd64", args={}, labels=LABEL, timeout=60, on_line=interrupt)
    assert gone(marker)


def test_an_image_of_another_platform_is_refused_with_a_remedy(build: Build, ours: Engine, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    built = build("FROM scratch\nCOPY a.txt /\n", platform="linux/arm64")
    for image in (built, ours.inspect(built.id)):
        with pytest.raises(StepFailed, match=r"is linux/arm64, and Cloud Run needs linux/amd64\n  -> remove --platform"):
            ensure_platform(image, "linux/amd64")
    ensure_platform(Image("sha256:1", (), 1, "linux/amd64", {}, ""), "linux/amd64")


BUILDX = """\
#!/bin/sh
[ "$*" = "--context default buildx version" ] && echo "github.com/docker/buildx v0.21.0" && exit
printf '%s\\n' "$@" > {folder}/arguments
cat {folder}/output
echo "who: $WHO"
exit $(cat {folder}/code)
"""
FAILED = """\
#5 [2/2] RUN make
#5 0.213 one
#5 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 3
------
 > [2/2] RUN make:
0.213 one
0.300 two
------
Dockerfile:2
--------------------
   2 | >>> RUN make
--------------------
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 3
"""


@pytest.fixture
def buildx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Path]:
    """A docker command with buildx, as far as this client asks: it says what it is told to say."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(BUILDX.format(folder=folder))
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def says(output: str, code: int) -> Path:
        (folder / "output").write_text(output)
        (folder / "code").write_text(str(code))
        return folder / "arguments"

    return says


def test_where_the_docker_command_has_buildx_it_builds_one_manifest_and_keeps_arguments_out_of_sight(
    tmp_path: Path, base_image: str, buildx: Callable[[str, int], Path]
) -> None:
    told, engine, lines = buildx("#4 [1/2] FROM x\n#4 CACHED\n#5 [2/2] RUN x\n#5 DONE 0.1s\n", 0), Engine.connect(), list[str]()
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    given: dict[str, Any] = {"args": {"WHO": "s3cret"}, "labels": {"k": "v w"}, "timeout": 20, "on_line": lines.append}
    built = engine.build(tmp_path, "Dockerfile", base_image, platform="linux/amd64", **given)
    arguments = told.read_text().splitlines()
    assert (engine.builder, built.builder, built.cached_steps) == ("buildx", "buildx", 1)
    assert arguments[:6] == ["--context", "default", "buildx", "build", "--builder", "default"]
    assert {"--load", "--provenance=false", "--sbom=false", "WHO", "k=v w", str(tmp_path / "Dockerfile")} < set(arguments)
    assert "s3cret" not in told.read_text()
    assert lines[-1] == "who: s3cret"


def test_a_build_that_fails_in_buildx_says_its_step_and_its_last_lines(tmp_path: Path, buildx: Callable[[str, int], Path]) -> None:
    buildx(FAILED, 1)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(StepFailed, match=r"\[2/2\] RUN make ended with exit code 3") as failed:
        Engine.connect().build(tmp_path, "Dockerfile", TAG, platform="linux/amd64", args={}, labels={}, timeout=20, on_line=print)
    assert failed.value.remedy == "it said last:\n  one\n  two"


# -- the context ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A small context with what contexts have."""
    for name in ("Dockerfile", "app.py", "web/index.html", "web/node_modules/x.js", "docs/report.md", "build_tag.txt", "secret.env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("FROM scratch\nCOPY . /\n" if name == "Dockerfile" else name)
    (tmp_path / ".dockerignore").write_text("# what stays out\n\n**/node_modules\n*.env\nDockerfile\n")
    (tmp_path / "link").symlink_to("app.py")
    return tmp_path


def test_the_context_is_what_dockerignore_leaves(context: Path) -> None:
    left = (".dockerignore", "Dockerfile", "app.py", "build_tag.txt", "docs/report.md", "link", "web/index.html")
    assert context_files(context, "Dockerfile") == left
    (context / "Dockerfile.dockerignore").write_text("*\n!web\n")
    assert "web/node_modules/x.js" in context_files(context, "Dockerfile")
    assert "app.py" not in context_files(context, "Dockerfile")


def test_the_builder_gets_the_files_as_they_are_and_the_dockerfile_first(context: Path) -> None:
    (context / "app.py").chmod(0o755)
    os.link(context / "app.py", context / "same.py")
    deep = context / ("d" * 120) / ("é" * 100)
    deep.mkdir(parents=True)
    (deep / ("f" * 120)).write_text("deep")
    out, name = tarred(context, "Dockerfile")
    with out, tarfile.open(fileobj=out) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert (next(iter(members)), name) == ("Dockerfile", "Dockerfile")
        assert members["app.py"].mode & 0o777 == 0o755
        assert members["link"].issym()
        for copy in ("app.py", "same.py"):
            content = tar.extractfile(copy)
            assert content is not None
            assert content.read() == b"app.py"
        assert f"{deep.relative_to(context)}/{'f' * 120}" in members
        assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}


def test_long_names_and_a_dockerfile_elsewhere_reach_the_builder(ours: Engine, tmp_path: Path, base_image: str) -> None:
    context, lines = tmp_path / "context", list[str]()
    deep = context / ("d" * 120) / ("é" * 100)
    deep.mkdir(parents=True)
    (deep / ("f" * 120)).write_text("deep")
    elsewhere = tmp_path / "Containerfile"
    elsewhere.write_text(f"FROM {base_image}\nCOPY . /ctx/\nRUN find /ctx -type f -name 'f*' -exec wc -c {{}} + # {unlike()}\n")
    ours.build(context, str(elsewhere), TAG, platform="linux/amd64", args={}, labels=LABEL, timeout=60, on_line=lines.append)
    assert any("f" * 120 in line and line.split()[1] == "4" for line in lines)


def key(context: Path, **more: Any) -> str:
    given = {"args": {"A": "1"}, "base_digests": ["sha256:b"], "exclude": ["build_tag.txt", "docs/**"], **more}
    return content_key(context, "Dockerfile", **given)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: (c / "app.py").write_text("other"),
        lambda c: (c / "app.py").chmod(0o755),
        lambda c: (c / "app.py").rename(c / "main.py"),
        lambda c: (c / "new.py").write_text(""),
        lambda c: (c / "web/index.html").unlink(),
        lambda c: (c / "Dockerfile").write_text("FROM scratch\n"),
        lambda c: (c / ".dockerignore").write_text("web\n"),
        lambda c: ((c / "link").unlink(), (c / "link").symlink_to("web")),
    ],
    ids=["bytes", "mode", "name", "a file more", "a file less", "Dockerfile", ".dockerignore", "link"],
)
def test_what_changes_the_image_changes_the_key(context: Path, change: Callable[[Path], object]) -> None:
    before = key(context)
    change(context)
    assert key(context) != before


def test_arguments_bases_and_platform_are_part_of_the_key(context: Path) -> None:
    others: list[dict[str, Any]] = [{"args": {"A": "2"}}, {"args": {}}, {"base_digests": ["sha256:c"]}, {"platform": "linux/arm64"}]
    assert len({key(context), *(key(context, **other) for other in others)}) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda c: (c / "build_tag.txt").write_text("IMAGE_TAG=other\n"),
        lambda c: (c / "docs/2026-01-01.md").write_text("new report"),
        lambda c: (c / "secret.env").write_text("other"),
        lambda c: os.utime(c / "app.py", (1, 1)),
        lambda c: (c / "app.py").chmod(0o600),
    ],
    ids=["tag file", "documents", "ignored", "time", "who may read"],
)
def test_what_a_release_writes_and_what_the_builder_does_not_see_keep_the_key(context: Path, change: Callable[[Path], object]) -> None:
    before = key(context)
    change(context)
    assert key(context) == before


@pytest.mark.parametrize(
    ("dockerfile", "images"),
    [
        ("FROM python:3.11\n", ("python:3.11",)),
        ("# FROM x\nfrom  --platform=linux/amd64 python:3.11 as base\nFROM base\n", ("python:3.11",)),
        ("ARG V=3.11\nARG B=python:${V}-slim\nFROM $B\n", ("python:3.12-slim",)),
        ("ARG X\nFROM ${X:-debian}\nARG B=no\n", ("debian",)),
        ("FROM n:1 AS web\nFROM scratch\nCOPY --from=web /a /b\nCOPY --chown=1 --from=g:1 /c /d\nCOPY --from=0 /e /f\n", ("n:1", "g:1")),
        ("FROM a\nRUN --mount=type=bind,from=tools:1,target=/t \\\n  # comment\n  make\n", ("a", "tools:1")),
    ],
)  # fmt: skip
def test_the_images_that_a_dockerfile_builds_on_are_known(dockerfile: str, images: tuple[str, ...]) -> None:
    assert base_images(dockerfile, {"V": "3.12"}) == images


# -- registry ------------------------------------------------------------------------------------------------------------


def named(registry: str) -> str:
    return f"{registry}/clients/app/{unlike()}:t1"


def test_a_push_gives_the_digest_by_which_the_registry_knows_the_image(build: Build, ours: Engine, registry: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(os.urandom(200_000))
    ref, lines = named(registry), list[str]()
    ours.tag(build("FROM scratch\nCOPY a.bin /\n").id, ref)
    pushed = ours.push(ref, auth=None, timeout=60, on_line=lines.append)
    manifest = ours.manifest(ref)
    assert pushed.digest.startswith("sha256:")
    assert (manifest.digest, manifest.platforms) == (pushed.digest, ("linux/amd64",))
    assert f"{ref.rpartition(':')[0]}@{pushed.digest}" in ours.inspect(ref).digests
    assert any(line.endswith(": Pushed") for line in lines)
    assert ours.push(ref, auth=None, timeout=60, on_line=lines.append).digest == pushed.digest
    assert any(line.endswith(": Layer already exists") for line in lines)
    ours.remove(ref)


def test_what_a_registry_does_not_have_is_missing(ours: Engine, registry: str) -> None:
    with pytest.raises(Missing):
        ours.manifest(named(registry))
    with pytest.raises(Missing, match="build and tag it first"):
        ours.push(named(registry), auth=None, timeout=60, on_line=print)


def test_a_registry_that_is_down_is_an_outage(build: Build, ours: Engine, free_port: Callable[[], int], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    ref = named(f"localhost:{free_port()}")
    ours.tag(build("FROM scratch\nCOPY a.txt /\n").id, ref)
    with pytest.raises(Unavailable, match="connection refused"):
        ours.push(ref, auth=None, timeout=60, on_line=print)
    with pytest.raises(Unavailable, match="connection refused"):
        ours.manifest(ref)
    ours.remove(ref)


@pytest.fixture(scope="module")
def guarded_registry(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    """A registry that wants a password."""
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    (folder / "passwords").write_text(PASSWORDS)
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {folder}/passwords}}}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_registry_that_refuses_is_final_and_a_password_of_the_call_opens_it(
    build: Build, ours: Engine, guarded_registry: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    ref = named(guarded_registry)
    ours.tag(build("FROM scratch\nCOPY a.txt /\n").id, ref)
    for auth in (None, {"username": "ana", "password": "wrong"}):
        with pytest.raises(Denied, match=f"gcloud auth configure-docker {guarded_registry}") as refused:
            ours.push(ref, auth=auth, timeout=60, on_line=print)
        assert "wrong" not in str(refused.value)
    right = {"username": "ana", "password": "let-me-in"}
    pushed = ours.push(ref, auth=right, timeout=60, on_line=print)
    assert ours.manifest(ref, auth=right).digest == pushed.digest
    ours.remove(ref)


def test_a_base_image_behind_a_password_is_pulled_with_the_docker_commands_own_credentials(
    build: Build, ours: Engine, guarded_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a")
    base, lines = named(guarded_registry), list[str]()
    ours.tag(build(f"FROM scratch\nCOPY a.txt /\nLABEL only={unlike()}\n").id, base)
    ours.push(base, auth={"username": "ana", "password": "let-me-in"}, timeout=60, on_line=print)
    ours.remove(base, force=True)
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY b.txt /\n")
    order: dict[str, Any] = {"platform": "linux/amd64", "args": {}, "labels": LABEL, "timeout": 60, "on_line": lines.append}
    with pytest.raises(Denied, match="asks for credentials\n  -> docker login localhost"):
        ours.build(tmp_path, "Dockerfile", TAG, **order)
    stored = base64.b64encode(b"ana:let-me-in").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded_registry: {"auth": stored}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert Engine.connect().build(tmp_path, "Dockerfile", TAG, **order).size == 2
    assert f"pulled {base}" in lines
    ours.remove(base)


def test_a_push_ends_at_its_limit(build: Build, ours: Engine, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        ref = named(f"localhost:{silent.getsockname()[1]}")
        ours.tag(build("FROM scratch\nCOPY a.txt /\n").id, ref)
        begun = time.monotonic()
        with pytest.raises(StepFailed, match="the push was not finished after 1 s"):
            ours.push(ref, auth=None, timeout=1, on_line=print)
        assert time.monotonic() - begun < 5
    ours.remove(ref)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('Get "https://r/v2/": dial tcp: lookup r: no such host', Unavailable),
        ("received unexpected HTTP status: 503 Service Unavailable", Unavailable),
        ("net/http: TLS handshake timeout", Unavailable),
        ("toomanyrequests: quota exceeded", Unavailable),
        ('denied: Permission "artifactregistry.repositories.uploadArtifacts" denied on resource', Denied),
        ("unauthorized: authentication required", Denied),
        ("no basic auth credentials", Denied),
        ('name unknown: Repository "app" not found', Missing),
        ("tag does not exist: r/app:t1", Missing),
        ("blob upload invalid", StepFailed),
    ],
)
def test_a_refusal_of_a_registry_is_an_outage_or_final(message: str, kind: type[RelaisError]) -> None:
    assert type(registry_error(message, "r.example/p/app:t1")) is kind


@pytest.mark.parametrize(
    ("message", "kind", "what"),
    [
        ("failed to solve: failed to register layer: write /x: no space left on device", StepFailed, "the disk is full"),
        ('process "/bin/sh -c x" did not complete successfully: exit code: 2', StepFailed, "exit code 2"),
        ('failed to solve: failed to compute cache key: "/dist": not found', StepFailed, "/dist is not in the build context"),
        ("Dockerfile:3\nfailed to solve: dockerfile parse error on line 3: unknown instruction: RUNN", BadInput, "unknown instruction"),
        ("failed to solve: app:1: pull access denied, repository does not exist or may require authorization", Missing, "cannot be had"),
    ],
)
def test_the_words_of_newer_builders_are_understood_too(message: str, kind: type[RelaisError], what: str) -> None:
    error = build_error(message, "Dockerfile", "[2/2] RUN x", ("said",))
    assert type(error) is kind
    assert what in error.what
