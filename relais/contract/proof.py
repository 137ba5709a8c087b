"""What serves against what was built and asked for."""

from collections.abc import Collection

from relais.model import Finding, Outcome, Split


def serves_findings(
    split_now: Split, wanted_split: Split, digest_serving: str, digest_built: str, platform_digests: Collection[str] = ()
) -> list[Finding]:
    """The proof: the digest that serves is the one built, and the split is the one asked for.

    One image has two digests where a registry keeps an index: the index's and the platform manifest's. `platform_digests` are those
    that belong to the digest built.
    """
    outcome, detail = _digest(digest_serving, digest_built, platform_digests)
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


def _digest(serving: str, built: str, platforms: Collection[str]) -> tuple[Outcome, str]:
    if not built:
        return "not proven", "the digest that was built is not known"
    if not serving:
        return "not proven", f"built {built}, but what serves is not named by digest"
    if serving == built:
        return "passed", built
    if serving in platforms:
        return "passed", f"{serving}, the platform's manifest in the index {built}"
    return "failed", f"built {built}, but {serving} serves"
