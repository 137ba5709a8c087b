"""The operations of Cloud Run: each is kept with a line that says what it does, so that a restart can do it again."""

from typing import Any

from localcloud.naming import ServiceName
from localcloud.operations import Job, Operations, Work
from localcloud.run.reconcile import Reconciler

_SOON_S = 0.05  # what is done this soon is told as done at once


class Jobs:
    """Starts the reconciler's work as operations, and starts it again."""

    def __init__(self, operations: Operations, reconciler: Reconciler) -> None:
        self._operations, self._reconciler = operations, reconciler

    def deploy(self, method: str, name: ServiceName, service: Any, revision: str) -> Any:
        """Try a revision, and serve by the service's targets."""
        return self._start(method, name, service, f"deploy {name} {revision}")

    def shift(self, method: str, name: ServiceName, service: Any) -> Any:
        """Serve by the service's targets."""
        return self._start(method, name, service, f"shift {name} -")

    def delete(self, method: str, name: ServiceName, service: Any) -> Any:
        """Delete a service with its revisions."""
        return self._start(method, name, service, f"delete {name} {service.uid}")

    def delete_revision(self, method: str, name: ServiceName, revision: Any) -> Any:
        """Delete a revision that does not serve."""
        return self._start(method, name, revision, f"delete-revision {revision.name} {revision.uid}")

    async def soon(self, operation: Any) -> Any:
        """The operation as it is in a moment: a quick one is done by then."""
        return await self._operations.settled(operation, _SOON_S)

    def again(self, line: str) -> Job | None:
        """The job that a line names; None if it names none."""
        kind, resource, what = line.split(" ")
        reconciler = self._reconciler
        if kind == "delete-revision":
            return Job(reconciler.delete_revision(resource, what))
        name = ServiceName.parse(resource)
        if kind == "delete":
            return Job(reconciler.delete(name, what))
        if kind == "deploy":
            return self._job(name, reconciler.deploy(name, what), what)
        if kind == "shift":
            return self._job(name, reconciler.shift(name), "")
        return None

    def _job(self, name: ServiceName, work: Work, revision: str) -> Job:
        return Job(work, lambda: self._reconciler.find(name), lambda why: self._reconciler.give_up(name, revision, why.message))

    def _start(self, method: str, name: ServiceName, resource: Any, line: str) -> Any:
        job = self.again(line)
        if job is None:
            raise ValueError(f"no job: {line}")
        return self._operations.start(name.parent, resource, job, resume=line, method=method)
