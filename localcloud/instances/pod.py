"""One instance's containers, as they are now."""

import asyncio
from dataclasses import dataclass, field

from localcloud.instances.blueprint import Blueprint, Part
from localcloud.instances.ways import Address


@dataclass(eq=False)
class Member:
    """One container of a pod. `printed`: all that it ever printed is stored; `killed`: somebody sent it a signal through the Engine."""

    id: str
    part: Part
    printed: asyncio.Event = field(default_factory=asyncio.Event)
    started: bool = False
    killed: bool = False


@dataclass(eq=False)
class Pod:
    """What one instance runs in. `ended`: it serves no more, by itself or because it was stopped."""

    instance: str
    blueprint: Blueprint
    members: list[Member] = field(default_factory=list)
    ports: dict[int, Address] = field(default_factory=dict)  # where the containers' own are reached
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    serves: bool = False  # it was given to the fleet
    stopping: bool = False
    ending: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The instanceId: the id of the container that gets the requests ("" until it is made)."""
        return next((each.id for each in self.members if each.part.port), "")

    @property
    def address(self) -> Address | None:
        """Where it gets its requests; None if nowhere yet."""
        return self.ports.get(self.blueprint.ingress.port)
