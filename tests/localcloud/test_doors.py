"""The ports of services: nobody gets one that the state gave to somebody else."""

import asyncio
from pathlib import Path
from typing import Any

from localcloud.naming import ServiceName
from localcloud.state import State
from localcloud.traffic.doors import Doors


def test_a_port_of_the_systems_choice_is_none_that_another_service_was_given(tmp_path: Path) -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    given = [*range(20000, 30000), *(port for port in range(max(low, 30000), high + 1) if port // 2 % 2)]
    state = State(tmp_path / "cloud.sqlite")
    with state.transaction():
        for port in given:
            state.put_port("another", str(port), port)

    async def reserve() -> None:
        runner: Any = None  # nothing is served here
        doors, name = Doors("127.0.0.1", "clone", state, runner), ServiceName.parse("projects/p/locations/r/services/one")
        for number in range(10):
            doors.reserve(name, f"tag-{number}")
        doors.shut(name, set())
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=5)  # type: ignore[arg-type]

    asyncio.run(reserve())
    assert len(state.ports()) == len(given) + 10
    state.close()
