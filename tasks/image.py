"""The image: built once for the same content, known by its digest, pushed and found again in Artifact Registry."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from relais import documents
from relais.clients.build_context import last_platform
from relais.clients.docker import Engine, Image, base_images, content_key, ensure_platform
from relais.clients.files import write_whole
from relais.clients.registry import ArtifactRegistry
from relais.config import BUILD_TAG, Size, found_in
from relais.config.image import Build
from relais.errors import BadInput, StepFailed
from relais.model import Built, Finding, Layer, Outcome, Plan, Pushed, blocking
from tasks.effects import effect, say

KEY, COMMIT, RELEASE = "relais.dev/key", "org.opencontainers.image.revision", "relais.dev/release"
VERSION = "org.opencontainers.image.version"


@effect("build image")
def build(plan: Plan) -> Built:
    """Build the image, or take the one on the Engine that was built from this very content; verify platform and size."""
    wanted, root, engine, begun = plan.file.build, Path(plan.source.root), Engine.connect(), time.monotonic()
    if wanted is None:
        raise BadInput("there is nothing to build", where="release.yaml: build", remedy="this version builds every image")
    ref, context, dockerfile = f"{plan.image}:{plan.tag}", root / wanted.context, str((root / wanted.dockerfile).absolute())
    _write_tag(root, plan.tag)
    text = Path(dockerfile).read_text(encoding="utf-8", errors="replace")
    if (named := last_platform(text)) not in ("", wanted.platform):
        what = f"its last FROM asks for {named}, and Cloud Run needs {wanted.platform}"
        raise StepFailed(what, where=dockerfile, remedy="remove --platform from it, or name linux/amd64")
    bases = [engine.image_id(name) or name for name in base_images(text, wanted.args)]
    written = plan.file.written_by_releases
    key = content_key(context, dockerfile, wanted.args, bases, exclude=written, platform=wanted.platform)
    made = None
    if known := engine.find({KEY: key}):
        engine.tag(known[0].id, ref)
        say(
            f"the same content was built before (from {known[0].labels.get(COMMIT, 'an unknown commit')[:7]}): used again, nothing is built"
        )
    else:
        labels = {KEY: key, COMMIT: plan.source.commit.sha, RELEASE: plan.id, VERSION: plan.tag}
        limit = wanted.timeout.total_seconds()
        made = engine.build(
            context, dockerfile, ref, platform=wanted.platform, args=wanted.args, labels=labels, timeout=limit, on_line=_shown("build")
        )
    found, layers, log = engine.inspect(ref), engine.layers(ref), made.log if made else ""
    ensure_platform(found, wanted.platform)
    findings = (*_sized(wanted, found, layers), *_expected(wanted, log, layers, cached=made is None or made.cached_steps > 0))
    for finding in findings:
        say(str(finding))
    if red := blocking(findings):
        raise StepFailed("; ".join(f"{f.name}: {f.detail}" for f in red), where=ref, remedy="nothing was pushed", evidence=findings)
    return Built(
        id=found.id,
        ref=ref,
        key=key,
        size=found.size,
        platform=found.platform,
        layers=layers[:5],
        reused=made is None,
        commit=found.labels.get(COMMIT, ""),
        builder=made.builder if made else "",
        log=made.log_tail if made else "",
        seconds=round(time.monotonic() - begun, 1),
        findings=findings,
    )


def _shown(step: str) -> Callable[[str], None]:
    return lambda line: say(f"  {step} | {line}")


def _write_tag(root: Path, tag: str) -> None:
    """The tag is made once, and left where the team's other tools look for it."""
    path = root / BUILD_TAG
    try:
        write_whole(path, documents.build_tag(path.read_bytes() if path.exists() else b"", tag))
    except OSError as problem:
        remedy = "free some space, or let this user write there"
        raise StepFailed(f"cannot be written: {problem.strerror}", where=str(path), remedy=remedy) from None


def _sized(wanted: Build, found: Image, layers: tuple[Layer, ...]) -> list[Finding]:
    """The size against its limits, with the layers that make it."""
    largest = "; ".join(f"{layer.size / 1e6:.0f} MB {layer.created_by[:60]}" for layer in layers[:3])
    detail = f"{found.size / 1e6:.0f} MB; largest layers: {largest}"

    def over(limit: Size | None) -> bool:
        return limit is not None and found.size > limit.bytes

    if over(wanted.size.fail):
        return [Finding(name="image size", kind="image", outcome="failed", detail=f"over {wanted.size.fail}: {detail}")]
    note = f"over {wanted.size.warn}: {detail}" if over(wanted.size.warn) else detail
    return [Finding(name="image size", kind="image", outcome="passed", detail=note)]


def _expected(wanted: Build, log: str, layers: tuple[Layer, ...], *, cached: bool) -> Iterator[Finding]:
    """Texts in the log, or in the commands of the layers; where steps came from the cache, what they once said is not proven."""
    commands = "\n".join(layer.created_by for layer in layers)
    for text in wanted.expect:
        said = found_in(text, log) or found_in(text, commands)
        outcome: Outcome = "passed" if said else "not proven" if cached else "failed"
        detail = "said" if said else "not said by this build: its step came from the cache" if cached else "is not in the build's log"
        yield Finding(name=f"build log: {text}", kind="image", outcome=outcome, detail=detail, required=outcome == "failed")


@effect("push image", retries=2, delays=(2.0, 10.0))
def push(plan: Plan, built: Built) -> Pushed:
    """Push, and look the image up in Artifact Registry by tag and by digest: what is deployed is what is found there."""
    engine, begun, file = Engine.connect(), time.monotonic(), plan.file
    registry = ArtifactRegistry(file.project, file.region)
    sent = engine.push(built.ref, auth=registry.auth(built.ref), timeout=file.push.timeout.total_seconds(), on_line=_shown("push"))
    there = engine.manifest(built.ref, auth=registry.auth(built.ref))
    if there.digest != sent.digest or built.platform not in there.platforms:
        what = f"the registry has {there.digest[:19]} for {', '.join(there.platforms)} under {plan.tag}, and {sent.digest[:19]} was pushed"
        raise StepFailed(what, where=built.ref, remedy="somebody pushed the same tag meanwhile: release again")
    by_tag = registry.image_by_tag(file.repository, file.service, plan.tag)
    by_digest = registry.image_by_digest(file.repository, file.service, sent.digest)
    if by_tag is None or by_digest is None or by_tag.digest != sent.digest:
        raise StepFailed(
            f"pushed {sent.digest[:19]}, and Artifact Registry shows {by_tag.digest[:19] if by_tag else 'nothing'} under {plan.tag}",
            where=built.ref,
            remedy="somebody pushed the same tag meanwhile, or the registry is behind: release again",
        )  # fmt: skip
    say(f"{plan.image} {plan.tag} is {sent.digest[:19]} in Artifact Registry ({by_tag.size / 1e6:.0f} MB)")
    verified = Finding(name="image in Artifact Registry", kind="image", outcome="passed", detail=f"tag and digest agree: {sent.digest}")
    return Pushed(
        ref=built.ref, digest=sent.digest, pinned=f"{plan.image}@{sent.digest}", size=by_tag.size,
        seconds=round(time.monotonic() - begun, 1), findings=(verified,),
    )  # fmt: skip
