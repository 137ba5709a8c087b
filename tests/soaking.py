"""How much of the long tests is run: a sample by a seed, or the whole (`make soak`)."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Soak:
    """A sample by a seed, or the whole."""

    whole: bool
    seed: int

    def rounds(self, sample: int, whole: int) -> int:
        """How many rounds to run."""
        return whole if self.whole else sample

    def random(self) -> random.Random:
        """A generator that gives the same again for the same seed."""
        return random.Random(self.seed)
