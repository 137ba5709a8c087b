"""Which names lead to this machine alone: what a browser is led to by another (DNS rebinding) is refused."""

import contextlib
import ipaddress
from urllib.parse import urlsplit


def leads_here(host: str) -> bool:
    """Whether a Host header, with or without a port, names this machine: `localhost` or a loopback address."""
    name = ""
    with contextlib.suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"
