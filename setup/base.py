"""The sample's base image: Debian with what the sample imports, from Docker Hub where it answers, else built with mmdebstrap."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from setup import engine
from setup.clone import Clone
from setup.trouble import Trouble

_HERE = Path(__file__).parent
_PULL_WITHIN = 5.0
_BUILD_WITHIN = 600.0
_CHANGES = ["ENV LANG=C.UTF-8", "ENV PYTHONUNBUFFERED=1", 'CMD ["python3"]']
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def image_name() -> str:
    """The same content has the same name, in every clone; other content has another."""
    content = b"".join((_HERE / name).read_bytes() for name in ("base.packages", "base.Dockerfile"))
    return f"relais-base:{hashlib.sha256(content).hexdigest()[:12]}"


def packages() -> list[str]:
    """The Debian packages in it."""
    return [line for line in (_HERE / "base.packages").read_text().split("\n") if line and not line.startswith("#")]


def ensure(clone: Clone, need_mmdebstrap: Callable[[], None]) -> bool:
    """Have the image in the Engine; True when it had to be made."""
    name, log = image_name(), clone.log("base-image")
    if engine.has_image(name):
        return False
    try:
        engine.pull("debian", "bookworm-slim", _PULL_WITHIN)
    except (OSError, Trouble) as error:
        log.write_text(f"Docker Hub did not give debian:bookworm-slim ({error}); building with mmdebstrap.\n")
        need_mmdebstrap()
        _bootstrap(name, log)
    else:
        log.write_text(engine.build(_context(), "base.Dockerfile", name, _BUILD_WITHIN) + "\n")
    return True


def _context() -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("base.Dockerfile", "base.packages"):
            tar.add(_HERE / name, arcname=name)
    packed.seek(0)
    return packed


def _bootstrap(name: str, log: Path) -> None:
    if not shutil.which("mmdebstrap"):
        raise Trouble(
            "debian:bookworm-slim cannot be pulled, and mmdebstrap is not installed.",
            remedy="Install mmdebstrap, or let the Engine pull.",
            log=log,
        )
    with tempfile.TemporaryDirectory(prefix="relais-base-") as scratch:
        tree = Path(scratch) / "root.tar"
        # usr-is-merged, with its hook, keeps usrmerge and all of perl out.
        wanted = ",".join([*packages(), "usr-is-merged"])
        command = ["mmdebstrap", "--variant=essential", "--architectures=amd64", f"--include={wanted}"]
        command += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        command += ["--customize-hook=rm -rf $1/var/cache/apt/* $1/var/lib/apt/lists/* $1/var/log/*", "bookworm", str(tree)]
        with log.open("a") as out:
            try:
                done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=_BUILD_WITHIN, check=False)
            except subprocess.TimeoutExpired as late:
                raise Trouble(f"mmdebstrap did not end within {_BUILD_WITHIN:.0f} s.", log=log) from late
        if done.returncode:
            raise Trouble(f"mmdebstrap ended with {done.returncode}.", log=log)
        with tree.open("rb") as file:
            engine.load_root(file, name, _CHANGES, 120)
