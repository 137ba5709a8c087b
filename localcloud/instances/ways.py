"""The ways to a container: its own address on this machine's bridge where there is one, else the ports that the Engine publishes."""

import socket
from collections.abc import Mapping
from typing import Any, NamedTuple


class Address(NamedTuple):
    """Where one port of a container is reached. `own`: the container itself accepts there, and nobody in between."""

    host: str
    port: int
    own: bool = True


def direct(engine: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether containers' own addresses are reached from here, from what the Engine says of itself and of a container's network.

    Not with an Engine of another machine (also Docker Desktop's), whose bridge may have the same addresses as one of ours, and not with
    one that has a network of its own (rootless).
    """
    here = engine.get("Name") == socket.gethostname()
    return here and "name=rootless" not in (engine.get("SecurityOptions") or ()) and _ours(_bridge(settings).get("Gateway", ""))


def addresses(settings: Mapping[str, Any], *, own: bool) -> dict[int, Address]:
    """The address of each published port, by the container's own number; empty when it does not run, or has another's network."""
    bound = {int(inner.split("/")[0]): outer[0] for inner, outer in (settings.get("Ports") or {}).items() if outer}
    host = _bridge(settings).get("IPAddress", "") if own else ""
    return {port: Address(host, port) if host else Address("127.0.0.1", int(outer["HostPort"]), False) for port, outer in bound.items()}


def _bridge(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(iter((settings.get("Networks") or {}).values()), {})


def _ours(address: str) -> bool:
    """Whether this machine has the address."""
    if not address:
        return False
    with socket.socket() as trial:
        try:
            trial.bind((address, 0))
        except OSError:
            return False
    return True
