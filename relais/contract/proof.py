"""What serves against what was built and asked for."""

from relais.model import Finding, Outcome, Split


def serves_findings(split_now: Split, wanted_split: Split, digest_serving: str, digest_built: str) -> list[Finding]:
    """The proof: the digest that serves is the one built, and the split is the one asked for.

    One digest is deployed by name, so it is compared as it is: an index and a manifest in it are not the same here.
    """
    outcome, detail = _digest(digest_serving, digest_built)
    same = split_now.same(wanted_split)
    return [
        Finding(name="digest that serves", kind="proof", outcome=outcome, detail=detail),
        Finding(
            name="split that serves",
            kind="proof",
            outcome="passed" if same else "failed",
            detail=str(split_now) if same else f"asked for {wanted_split}; {split_now} serves",
        ),
    ]


def _digest(serving: str, built: str) -> tuple[Outcome, str]:
    if not built:
        return "not proven", "the digest that was built is not known"
    if not serving:
        return "not proven", f"built {built}, but what serves is not named by digest"
    if serving == built:
        return "passed", built
    return "failed", f"built {built}, but {serving} serves"
