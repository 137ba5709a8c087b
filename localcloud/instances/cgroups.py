"""What a process's control groups have used (version 1), for Engines that cannot read them themselves.

https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, cpuacct.html
"""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def used(pid: int) -> tuple[float, int] | None:
    """CPU seconds, and bytes of memory that cannot be reclaimed; None if this machine does not tell."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
        groups = {line.split(":", 2)[1]: line.split(":", 2)[2].lstrip("/") for line in lines}
        memory = _ROOT / "memory" / groups["memory"]
        cpu = int((_ROOT / "cpuacct" / groups["cpuacct"] / "cpuacct.usage").read_text())
        total = int((memory / "memory.usage_in_bytes").read_text())
        stat = dict(line.split(" ", 1) for line in (memory / "memory.stat").read_text().splitlines())
        return cpu / 1e9, max(total - int(stat.get("total_inactive_file", 0)), 0)
    except (OSError, ValueError, KeyError):
        return None
