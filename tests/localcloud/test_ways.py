"""Instances are reached at their own addresses where this machine has the bridge, else through the Engine's published ports."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import docker
import httpx
import pytest
from clouds import Cloud
from google.api_core import exceptions

from localcloud.instances import probes, ways
from localcloud.instances.blueprint import Probe
from localcloud.instances.engine import Engine
from localcloud.instances.ways import Address

HERE = {"Name": socket.gethostname(), "SecurityOptions": ["name=seccomp"]}
PORTS = {"80/tcp": [{"HostPort": "3"}], "81/tcp": None}
LOCAL = {"Networks": {"bridge": {"Gateway": "127.0.0.1", "IPAddress": "172.17.0.9"}}, "Ports": PORTS}
TCP = Probe()


def test_the_bridge_of_another_machine_or_of_a_rootless_engine_is_not_used() -> None:
    foreign = {"Networks": {"bridge": {"Gateway": "192.0.2.1", "IPAddress": "192.0.2.9"}}}
    assert ways.direct(HERE, LOCAL)
    assert not ways.direct({**HERE, "Name": "docker-desktop"}, LOCAL)
    assert not ways.direct({**HERE, "SecurityOptions": ["name=rootless"]}, LOCAL)
    assert not any(ways.direct(HERE, network) for network in (foreign, {}, {"Networks": {"none": {"Gateway": ""}}}))


def test_a_port_has_the_containers_own_address_or_the_published_one() -> None:
    assert ways.addresses(LOCAL, own=True) == {80: Address("172.17.0.9", 80)}
    assert ways.addresses(LOCAL, own=False) == {80: Address("127.0.0.1", 3, own=False)}
    assert ways.addresses({"Networks": {}, "Ports": {}}, own=True) == {}


def test_services_work_as_well_through_published_ports_alone(own_cloud: Callable[..., Cloud], engine: docker.DockerClient) -> None:
    cloud = own_cloud("--published-ports")
    made = cloud.create("far")
    assert httpx.post(made.uri + "/echo", content=b"x" * 100_000).status_code == 200
    with pytest.raises(exceptions.FailedPrecondition, match="failed to start and listen on the port"):
        cloud.create("deaf", env={"FAIL": "deaf"})
    own, published = asyncio.run(_addresses(cloud.clone, False)), asyncio.run(_addresses(cloud.clone, True))
    assert (published.host, published.own) == ("127.0.0.1", False)
    if ways.direct(engine.info(), engine.containers.list(filters={"label": f"relais.clone={cloud.clone}"})[0].attrs["NetworkSettings"]):
        assert (own.port, own.own) == (8080, True)
    for way in (own, published):
        assert asyncio.run(probes.started(TCP, way, 5)).problem == ""


def test_a_connection_that_the_container_itself_accepts_is_proof_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        at = Address("127.0.0.1", server.getsockname()[1])
        took = []
        for _ in range(3):
            began = time.monotonic()
            assert asyncio.run(probes.started(TCP, at, 5)).problem == ""
            took.append(time.monotonic() - began)
        assert min(took) < 0.3
    assert asyncio.run(probes.started(TCP, at, 0.1)).problem


async def _addresses(clone: str, published: bool) -> Any:
    engine = Engine(clone, published=published)
    try:
        (found,) = [each for each in await engine.containers() if each.running]
        return found.ports[8080]
    finally:
        engine.close()
