"""Every error of Relais: what happened, the facts, and what to do next.

    RelaisError
    |-- BadInput            a file or a parameter says something that cannot be
    |-- Refused             a gate said no before anything outside changed
    |   `-- Locked          somebody else's rollout holds the service
    |-- StepFailed          a step of the release did its work and the answer is no (a build, a start, a contract)
    |-- Lost                the service is not as this run wrote it: a foreign split, an annotation that is gone
    |   `-- Overtaken       another run drives this rollout now
    |-- Unavailable         an outage: the only error that is retried, where the step may be repeated (a deploy is not)
    |-- Denied              the outside said no for good: permission, policy, what was asked for
    |   `-- Missing         there is no such thing
    `-- Conflict            somebody wrote between our read and our write; nothing was applied: read again, decide again
"""

from collections.abc import Iterable


class RelaisError(Exception):
    """What happened, where, and what to do next; printed as one short paragraph, never as a traceback.

    `evidence` are the findings behind it, for the record.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "", evidence: Iterable[object] = ()) -> None:
        super().__init__(what, where, remedy)
        self.what, self.where, self.remedy, self.evidence = what, where, remedy, tuple(evidence)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  -> {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel through Prefect's states, which pickle them."""
        return _again, (type(self), self.what, self.where, self.remedy, self.evidence)


def _again(cls: type[RelaisError], what: str, where: str, remedy: str, evidence: tuple[object, ...]) -> RelaisError:
    return cls(what, where=where, remedy=remedy, evidence=evidence)


class BadInput(RelaisError):
    """A release file, an env file or a parameter cannot be used as it is; `where` is file:line."""


class Refused(RelaisError):
    """A gate said no before anything outside had changed."""


class Locked(Refused):
    """Another release holds the service; the message says who, since when, and how to take over."""


class StepFailed(RelaisError):
    """A step did its work and the answer is no: the build failed, the revision did not start, the contract is not met."""


class Lost(RelaisError):
    """The wheel is somebody else's: traffic or owner are not what this process wrote last, so it writes nothing."""


class Overtaken(Lost):
    """Another run took the wheel: it drives the rollout and tells its end, and this one writes nothing any more."""


class Unavailable(RelaisError):
    """An outage that may pass: UNAVAILABLE, 429, 5xx, a read that timed out. Tasks retry this, and nothing else."""


class Denied(RelaisError):
    """The outside answered, and the answer is final: no permission, no such resource, refused for what it is."""


class Missing(Denied):
    """The outside answered that there is no such thing: a repository, an image, a service."""


class Conflict(RelaisError):
    """Somebody wrote between our read and our write; nothing of ours was applied: read again and decide again."""
