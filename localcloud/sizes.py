"""Kubernetes quantities, as resources.limits gives them: CPU and memory."""

import re

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)([A-Za-z]*)", re.ASCII)
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def cpu_count(text: str) -> float | None:
    """A number of CPUs from "1", "2.0" or "500m"; None if it is no such quantity."""
    found = _NUMBER.fullmatch(text)
    if not found or found[2] not in ("", "m"):
        return None
    return float(found[1]) / (1000 if found[2] else 1)


def memory_bytes(text: str) -> int | None:
    """Bytes from "512Mi", "1Gi" or "1000000"; None if it is no such quantity."""
    found = _NUMBER.fullmatch(text)
    if not found or found[2] not in _UNITS:
        return None
    return round(float(found[1]) * _UNITS[found[2]])
