"""Quotas of API calls: so many a minute for each project and region; what is beyond is refused as the real services refuse it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.rpc import error_details_pb2

from localcloud import form, naming
from localcloud.admin import methods
from localcloud.wire import Call, Code, Refusal

_details: Any = error_details_pb2
_MOST = 1_000_000
_READS = ("Get", "List", "Wait", "Test", "Tail")


@dataclass(frozen=True)
class Limits:
    """Calls a minute; null where there is no limit. The real numbers are those of `STRICT` [from memory, approximated]."""

    run_writes: int | None = form.field(None, least=0, most=_MOST)
    run_reads: int | None = form.field(None, least=0, most=_MOST)
    log_reads: int | None = form.field(None, least=0, most=_MOST)


STRICT = Limits(run_writes=180, run_reads=3000, log_reads=60)


@dataclass(frozen=True)
class _Quota:
    service: str
    metric: str
    limit: str
    most: int


class Quotas:
    """Counts the calls of the present minute of the clock [approximated: when a real minute begins is not known]."""

    def __init__(self) -> None:
        self.limits = Limits()
        self._minute = 0
        self._counts: dict[tuple[str, str, str], int] = {}

    async def gate(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Stand in front of every handler."""
        quota = self._quota(call)
        if quota is not None:
            parts = methods.resource(call).split("/")
            project, region = (parts[1] if len(parts) > 1 else ""), (parts[3] if len(parts) > 3 and parts[2] == "locations" else "global")
            self._count(quota, project, region)
        return await proceed()

    def _quota(self, call: Call) -> _Quota | None:
        service = call.method.split("/")[0]
        reads = call.rpc.startswith(_READS)
        if service in {"Services", "Revisions"} or (service == "Operations" and reads):
            most = self.limits.run_reads if reads else self.limits.run_writes
            metric = "Read requests" if reads else "Write requests"
            return None if most is None else _Quota("run.googleapis.com", metric, f"{metric} per minute per region", most)
        if service == "LoggingServiceV2" and reads and self.limits.log_reads is not None:
            return _Quota("logging.googleapis.com", "Read requests", "Read requests per minute", self.limits.log_reads)
        return None

    def _count(self, quota: _Quota, project: str, region: str) -> None:
        minute = int(time.time() // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        key = (quota.service + quota.metric, project, region)
        if self._counts.get(key, 0) >= quota.most:
            consumer = f"project_number:{naming.project_number(project)}"
            text = (
                f"Quota exceeded for quota metric '{quota.metric}' and limit '{quota.limit}' of service '{quota.service}' "
                f"for consumer '{consumer}'."
            )
            metadata = {
                "service": quota.service, "quota_metric": f"{quota.service}/{quota.metric.lower().replace(' ', '_')}",
                "quota_limit": quota.limit.title().replace(" ", ""), "quota_limit_value": str(quota.most),
                "quota_location": region, "consumer": f"projects/{naming.project_number(project)}",
            }  # fmt: skip
            info = _details.ErrorInfo(reason="RATE_LIMIT_EXCEEDED", domain="googleapis.com", metadata=metadata)
            raise Refusal(Code.RESOURCE_EXHAUSTED, text, info)
        self._counts[key] = self._counts.get(key, 0) + 1
