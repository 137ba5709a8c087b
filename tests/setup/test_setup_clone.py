"""Ports, id and environment of a clone."""

import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from setup.clone import PORTS, Clone, free, kept_ports, read_env, settle
from setup.trouble import Trouble

CONTRACT = (
    "RELAIS_ROOT",
    "RELAIS_HOME",
    "RELAIS_SAMPLE",
    "RELAIS_CLONE",
    "RELAIS_REGISTRY",
    "RELAIS_IMAGES",
    "RELAIS_BASE_IMAGE",
    "CLOUDRUN_EMULATOR_HOST",
    "RELAIS_CLOUD_ADMIN",
    "PREFECT_HOME",
    "PREFECT_API_URL",
    "PREFECT_SERVER_API_HOST",
    "PREFECT_SERVER_API_PORT",
)


@pytest.fixture(autouse=True)
def a_book_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clones of these tests keep no ports of this machine's real ones."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "one")


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """Another program's listener, not yet bound."""
    with socket.socket() as listener:
        yield listener


def ports_of(clone: Clone) -> dict[str, int]:
    return kept_ports(read_env(clone))


def test_the_environment_of_a_clone_is_written_once_and_read_back(clone: Clone) -> None:
    settle(clone, set(), {}, "relais-base:1")
    env = read_env(clone)
    assert set(CONTRACT) <= set(env)
    assert env["RELAIS_HOME"] == str(clone.root / ".relais")
    assert env["RELAIS_BASE_IMAGE"] == "relais-base:1"
    assert env["PREFECT_API_URL"] == f"http://127.0.0.1:{ports_of(clone)['PREFECT_PORT']}/api"


def test_ports_are_chosen_once_and_kept(clone: Clone) -> None:
    settle(clone, set(), {}, "x:1")
    before = ports_of(clone)
    assert settle(clone, set(), {}, "x:1") == []
    assert ports_of(clone) == before
    assert len(set(before.values())) == len(PORTS)


def test_a_kept_port_that_a_stranger_took_is_replaced_and_said(clone: Clone, stranger: socket.socket) -> None:
    settle(clone, set(), {}, "x:1")
    before = ports_of(clone)
    stranger.bind(("127.0.0.1", before["PREFECT_PORT"]))
    stranger.listen()
    said = settle(clone, set(), {}, "x:1")
    after = ports_of(clone)
    assert said == [f"PREFECT_PORT {before['PREFECT_PORT']} was taken by another program meanwhile: now {after['PREFECT_PORT']}."]
    assert after["PREFECT_PORT"] != before["PREFECT_PORT"]
    assert after["CLOUD_PORT"] == before["CLOUD_PORT"]


def test_a_port_that_our_own_service_holds_is_not_a_strangers(clone: Clone, stranger: socket.socket) -> None:
    settle(clone, set(), {}, "x:1")
    before = ports_of(clone)
    stranger.bind(("127.0.0.1", before["PREFECT_PORT"]))
    stranger.listen()
    assert settle(clone, {"PREFECT_PORT"}, {}, "x:1") == []
    assert ports_of(clone) == before


def test_a_port_that_is_asked_for_is_taken_and_kept(clone: Clone) -> None:
    settle(clone, set(), {}, "x:1")
    wanted = next(port for port in range(21000, 22000) if free(port))
    settle(clone, set(), {"CLOUD_PORT": str(wanted)}, "x:1")
    settle(clone, set(), {}, "x:1")
    assert ports_of(clone)["CLOUD_PORT"] == wanted


def test_asking_for_a_taken_port_names_it_and_what_to_do(clone: Clone, stranger: socket.socket) -> None:
    stranger.bind(("127.0.0.1", 0))
    stranger.listen()
    port = stranger.getsockname()[1]
    with pytest.raises(Trouble) as trouble:
        settle(clone, set(), {"CLOUD_PORT": str(port)}, "x:1")
    assert f"CLOUD_PORT={port}" in trouble.value.what
    assert "choose another port" in trouble.value.remedy


@pytest.mark.parametrize("text", ["0", "-1", "70000", "http", "88.5"])
def test_what_is_no_port_is_refused(clone: Clone, text: str) -> None:
    with pytest.raises(Trouble, match="is not a port"):
        settle(clone, set(), {"CLOUD_PORT": text}, "x:1")


def test_two_clones_that_choose_at_the_same_moment_choose_different_ports(tmp_path: Path) -> None:
    clones = [Clone(tmp_path / f"clone{number}") for number in range(6)]
    with ThreadPoolExecutor(len(clones)) as pool:
        list(pool.map(lambda clone: settle(clone, set(), {}, "x:1"), clones))
    ports = [port for clone in clones for port in ports_of(clone).values()]
    assert len(set(ports)) == len(clones) * len(PORTS)
    assert len({clone.id for clone in clones}) == len(clones)


def test_a_clone_that_is_gone_gives_its_ports_back(tmp_path: Path) -> None:
    gone, new = Clone(tmp_path / "gone"), Clone(tmp_path / "new")
    settle(gone, set(), {}, "x:1")
    gone.env_file.unlink()
    settle(new, set(), {}, "x:1")
    assert ports_of(new)["PREFECT_PORT"] >= PORTS["PREFECT_PORT"]
    settle(gone, set(), {}, "x:1")
    assert not set(ports_of(new).values()) & set(ports_of(gone).values())


def test_an_id_is_six_hex_digits_of_the_path(tmp_path: Path) -> None:
    one = Clone(tmp_path).id
    assert len(one) == 6
    assert int(one, 16) >= 0
    assert one == Clone(tmp_path).id != Clone(tmp_path / "x").id
