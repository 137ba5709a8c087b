"""What every noun is made of: frozen values, and the words for outcomes."""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["passed", "failed", "skipped", "waived", "not proven"]
SIGNS: Mapping[Outcome, str] = {"passed": "✅", "failed": "❌", "skipped": "⏭️", "waived": "🟡", "not proven": "❔"}
LATEST = "LATEST"


class Value(BaseModel):
    """Base of all nouns: frozen, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Value):
    """What a check, a gate, a request of the contract or a box of the checklist came to, with its evidence."""

    name: str
    outcome: Outcome
    detail: str = ""  # one line: what was expected and what came
    evidence: str = ""  # some lines of output, log or body
    seconds: float = 0.0
    required: bool = True
    kind: str = ""  # reading, git, check, http, metrics, logs, counter, smoke, proof, document ...
    reused: bool = False  # it passed before, for the same commit and inputs

    @property
    def blocks(self) -> bool:
        return self.required and self.outcome in ("failed", "not proven")

    def __str__(self) -> str:
        return f"{SIGNS[self.outcome]} {self.name}: {self.outcome}" + (f" ({self.detail})" if self.detail else "")


def blocking(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(f for f in findings if f.blocks)
