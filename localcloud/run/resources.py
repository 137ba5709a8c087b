"""How much CPU and memory an instance may have (https://cloud.google.com/run/docs/configuring/services/cpu#memory)."""

from google.cloud import run_v2

from localcloud.run.violations import Malformed, invalid
from localcloud.sizes import cpu_count, memory_bytes
from localcloud.wire import Refusal

_KEYS = {"cpu", "memory", "nvidia.com/gpu"}
_CPUS = (1.0, 2.0, 4.0, 6.0, 8.0)
_MI, _GI = 2**20, 2**30
_MEMORY = (  # from so many CPUs on: the least and the most memory
    (8.0, 4 * _GI, 32 * _GI),
    (6.0, 4 * _GI, 24 * _GI),
    (4.0, 2 * _GI, 16 * _GI),
    (2.0, 128 * _MI, 8 * _GI),
    (1.0, 128 * _MI, 4 * _GI),
    (0.5, 128 * _MI, 1 * _GI),
    (0.08, 128 * _MI, 512 * _MI),
)
_LEAST_GEN2 = 512 * _MI
_GEN2 = run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2


def check(template: run_v2.RevisionTemplate) -> None:
    """Check each container's limits, and their sums against each other and against the rest of the template."""
    limits = [_limits(container, f"template.containers[{index}]") for index, container in enumerate(template.containers)]
    cpu, memory = round(sum(each[0] for each in limits), 3), sum(each[1] for each in limits)
    gen2 = template.execution_environment == _GEN2
    if cpu > _CPUS[-1] or cpu < _MEMORY[-1][0]:
        raise _bad("cpu", f"Total cpu must be between {_MEMORY[-1][0]} and {_CPUS[-1]:g}.")  # [approximated]
    least, most = next((least, most) for from_, least, most in _MEMORY if cpu >= from_)
    least = max(least, _LEAST_GEN2) if gen2 else least
    if not least <= memory <= most:
        text = f"For {float(cpu)} CPU, memory must be between {_shown(least)} and {_shown(most)} inclusive."
        raise _bad("memory", text, " with gen2 execution environment" if gen2 else "")
    if cpu >= 1:
        return
    if template.max_instance_request_concurrency > 1:
        raise _bad("cpu", "Total cpu < 1 is not supported with concurrency > 1.")
    if gen2:
        raise _bad("cpu", "Total cpu < 1 is not supported with gen2 execution environment.")  # [approximated]
    if not all(container.resources.cpu_idle for container in template.containers):
        raise _bad("cpu", "Total cpu < 1 is not supported with cpu always allocated.")  # [approximated]


def room(size_limit: str, where: str) -> None:
    """Check the size of a volume in memory; none means as much as the instance has."""
    if size_limit and not memory_bytes(size_limit):
        raise Malformed(where, f"'{size_limit[:80]}' is not a quantity such as 128Mi.")  # [approximated]


def _limits(container: run_v2.Container, where: str) -> tuple[float, int]:
    limits = container.resources.limits
    unknown = sorted(set(limits) - _KEYS)
    if unknown:
        raise Malformed(f"{where}.resources.limits", f"{', '.join(unknown)[:80]} is not known; use cpu and memory.")  # [approximated]
    cpu, memory = cpu_count(limits["cpu"]), memory_bytes(limits["memory"])
    if cpu is None or not (0 < cpu < 1 or cpu in _CPUS):
        raise _bad("cpu", f"'{limits['cpu'][:80]}': use 0.08 to 1, or 1, 2, 4, 6, 8.")  # [approximated]
    if not memory:
        raise _bad("memory", f"'{limits['memory'][:80]}': use 128Mi to 32Gi.")  # [approximated]
    return cpu, memory


def _bad(what: str, text: str, how: str = "") -> Refusal:
    """[path and beginning of real texts of v2 calls]"""
    return invalid(f"template.containers.resources.limits.{what}: Invalid value specified for {what}{how}. {text}")


def _shown(size: int) -> str:
    return f"{size // _GI}Gi" if size % _GI == 0 else f"{size // _MI}Mi"
