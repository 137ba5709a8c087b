"""What a release would change, line by line, from what serves and what the release file asks; like a plan before it is applied."""

import re
from collections.abc import Collection, Iterator
from zoneinfo import ZoneInfo

from relais.config import Deploy, ReleaseFile
from relais.config.release import slug_of
from relais.errors import Refused
from relais.model import LATEST, App, Finding, Line, Plan, Record, ServiceName, Serving, Source, Spec, Split, Stable, Text, Wheel, blocking
from relais.rollout import read, require_free

LIMITS = ("memory", "cpu", "timeout", "max_instances")  # less of these than what serves blocks, unless the file allows it by name
GUARDED = ("service_account",)  # a change of these blocks, unless the file allows it by name


def difference(before: Spec | None, after: Spec, allow: Collection[str]) -> tuple[Line, ...]:
    """The lines of the plan for one revision: env and secrets by name, settings by value, what blocks marked."""
    old = before or Spec()
    return tuple(
        line if line.allow not in allow else line.model_copy(update={"blocks": False})
        for line in (*_environment(old, after), *_secrets(old, after), *_settings(old, after))
    )


def _environment(old: Spec, new: Spec) -> Iterator[Line]:
    for name in sorted({*old.env, *new.env}):
        before, after = old.env.get(name), new.env.get(name)
        was, will = old.plain.get(name, ""), new.plain.get(name, "")
        if before is None:
            yield Line(kind="changed" if name in old.secrets else "added", what=f"env {name}", before=was, after=will)
        elif after is None and name not in new.secrets:
            yield Line(kind="removed", what=f"env {name}", allow=f"remove env {name}", blocks=True, before=was, after=will)
        elif after is not None and before != after:
            yield Line(kind="changed", what=f"env {name}", before=was, after=will)
        elif after is not None:
            yield Line(kind="kept", what=f"env {name}", before=was)


def _secrets(old: Spec, new: Spec) -> Iterator[Line]:
    for name in sorted({*old.secrets, *new.secrets}):
        before, after = old.secrets.get(name, ""), new.secrets.get(name, "")
        if not before:
            yield Line(kind="added", what=f"secret {name}", after=after)
        elif not after:
            gone = name not in new.env
            yield Line(kind="removed", what=f"secret {name}", before=before, allow=f"remove secret {name}", blocks=gone)
        else:
            yield Line(kind="kept" if before == after else "changed", what=f"secret {name}", before=before, after=after)


def _settings(old: Spec, new: Spec) -> Iterator[Line]:
    for name in [n for n in dict.fromkeys([*old.settings, *new.settings])]:
        before, after = old.settings.get(name, ""), new.settings.get(name, "")
        if before == after or amount(before) == amount(after) is not None:
            yield Line(kind="kept", what=name, before=before)
        elif name in LIMITS and before and after and _less(after, before):
            yield Line(kind="lowered", what=name, before=before, after=after, allow=f"lower {name}", blocks=True)
        elif name in GUARDED and before:
            yield Line(kind="changed", what=name, before=before, after=after, allow=f"change {name}", blocks=True)
        else:
            yield Line(kind="changed" if before and after else "added" if after else "removed", what=name, before=before, after=after)


_UNITS = {"": 1.0, "m": 0.001, "s": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def amount(text: str) -> float | None:
    """'512Mi', '1000m', '300s', '10' as a number; None for anything else."""
    match = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|[mskMG]?)B?", text)
    return float(match[1]) * _UNITS[match[2]] if match else None


def _less(after: str, before: str) -> bool:
    new, old = amount(after), amount(before)
    return new is not None and old is not None and new < old


def access(serving: Serving, wanted: bool | str, allow: Collection[str]) -> Line:
    """Who may call the service, before and after."""
    now = "public" if serving.public else "private"
    asked = now if wanted == "keep" else "public" if wanted else "private"
    if not serving.exists:
        return Line(kind="added", what="access", after=asked)
    if asked == now:
        return Line(kind="kept", what="access", before=now)
    blocks = "change access" not in allow
    return Line(kind="changed", what="access", before=now, after=asked, allow="change access", blocks=blocks)


def unseen(serving: Serving, file: ReleaseFile) -> Iterator[Line]:
    """A service that nobody may call without a token cannot be verified from here: known now, and not after the deploy."""
    wanted = file.deploy.public
    if file.verify.http and not (wanted is True or (wanted == "keep" and serving.exists and serving.public)):
        what = "a private service cannot be verified yet, for requests carry no identity token"
        yield Line(kind="note", what=f"{what}: write deploy.public: true, or no verify.http", blocks=True)


def service_settings(serving: Serving, deploy: Deploy) -> Iterator[Line]:
    """What belongs to the service and not to a revision: changed for all revisions at once."""
    wanted: dict[str, tuple[str, str]] = {"ingress": (serving.ingress, deploy.ingress or "")}
    for name in ("min_instances", "max_instances"):
        asked = getattr(deploy.scaling, name) if deploy.scaling else None
        wanted[f"service {name}"] = (str(serving.scaling.get(name, "")), "" if asked is None else str(asked))
    for what, (before, after) in wanted.items():
        if not after or after == before:
            continue
        allow = "change ingress" if what == "ingress" else "lower max_instances" if what.endswith("max_instances") else ""
        blocks = bool(allow and before) and allow not in deploy.allow and (what == "ingress" or _less(after, before))
        yield Line(kind="changed" if before else "added", what=what, before=before, after=after, allow=allow, blocks=blocks)


def traffic(serving: Serving, candidate: str, steps: tuple[int, ...], finish: str) -> Iterator[Line]:
    """Who serves now, pins and foreign tags named, and what this release will do about them."""
    if not serving.exists:
        yield Line(kind="added", what="service", after=f"{serving.service.name}: its first revision serves as soon as it is ready")
    if not serving.split.by_name():
        yield Line(kind="note", what="first release: there is no stable revision to compare with or to go back to, so there is no canary")
        return
    yield Line(kind="changed", what="traffic", before=str(serving.split), after=_way(candidate, steps))
    if serving.split.mode == "pinned":
        yield Line(kind="note", what=f"traffic is pinned to {serving.split}: a plain deploy would get 0 %; this release moves it by name")
    if len(serving.split.by_name()) > 1:
        yield Line(kind="note", what="several revisions share the traffic; all of them are the stable side, and come back together")
    last = read(serving)
    ours = (last.tag, last.stable_tag) if last else ()
    foreign = sorted(t.tag for t in serving.desired if t.tag and t.tag not in ours)
    if foreign:
        yield Line(kind="note", what=f"tags of others stay: {', '.join(foreign)}")
    if serving.latest_created and serving.split.percent(serving.latest_created) == 0:
        yield Line(kind="note", what=f"the newest revision, {serving.latest_created}, serves nobody; settings come from what serves")
    yield Line(kind="note", what=f"after 100 %: {_finish(serving.split, finish)}")


def _way(candidate: str, steps: tuple[int, ...]) -> str:
    return f"{candidate} " + " -> ".join(f"{step} %" for step in (*steps, 100))


def _finish(split: Split, finish: str) -> str:
    if follows_latest(split, finish):
        return f"traffic points to {LATEST}, so that a later plain deploy serves"
    return "traffic stays pinned to the candidate: a later plain deploy gets 0 %"


def follows_latest(split: Split, finish: str) -> bool:
    """Whether traffic points to LATEST after promotion (`finish`: latest, pinned, as-before)."""
    return finish == "latest" or (finish == "as-before" and split.mode == "latest")


def free_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, or with -2, -3 ... where that name is taken; at most 63 characters."""
    if wanted not in taken:
        return wanted
    number = 2
    while (name := f"{wanted[: 63 - len(str(number)) - 1].rstrip('-')}-{number}") in taken:
        number += 1
    return name


def draw(
    app: App, source: Source, stable: Stable, texts: tuple[Text, ...], findings: tuple[Finding, ...], record: Record, by: str,
    medians: dict[str, float],
) -> Plan:  # fmt: skip
    """The whole plan, from everything that was read; it decides names, and what blocks, and writes nothing."""
    file, serving = app.file, stable.serving
    zone = ZoneInfo(file.documents.timezone)
    title = file.release.title or (source.since[0].subject if source.since else source.commit.subject) or source.commit.short
    names = {
        "timestamp": f"{record.started.astimezone(zone):%Y%m%d-%H%M%S}",
        "date": f"{record.started.astimezone(zone):%Y-%m-%d}",
        "slug": file.release.slug or slug_of(title) or source.commit.short,
        "service": file.service,
        "commit": source.commit.sha,
        "short_commit": source.commit.short,
    }
    names["tag"] = file.image_tag(names)
    again = stable.candidate_of(record.id, source.commit.sha)
    revision = again or free_name(file.revision(names), stable.taken)
    steps = file.canary.steps if file.canary else ()
    finish = file.canary.finish if file.canary else "as-before"
    changes = tuple(c.model_dump() for c in file.release.changes) or tuple({"title": str(c), "items": []} for c in source.since[:30])
    return Plan(
        id=record.id,
        wheel=wheel(record, serving),
        started=record.started,
        by=by,
        service=app.service,
        source=source,
        release=app.release,
        title=title,
        slug=names["slug"],
        changes=changes,
        image=f"{stable.registry_uri}/{file.service}",
        tag=names["tag"],
        revision=revision,
        traffic_tag=f"c-{record.id.rpartition('-')[2]}",
        first=not serving.split.by_name(),
        stable=serving.split,
        stable_spec=stable.before,
        uri=serving.uri,
        etag=serving.etag,
        lines=(
            *traffic(serving, revision, steps, finish),
            access(serving, file.deploy.public, file.deploy.allow),
            *unseen(serving, file),
            *service_settings(serving, file.deploy),
            *difference(stable.before, stable.after, file.deploy.allow),
            *unsupported(file),
            *(Line(kind="note", what=f"work that no split divides: {work}") for work in file.deploy.background),
        ),
        texts=texts,
        findings=findings,
        medians=medians,
    )


def wheel(record: Record, serving: Serving) -> Wheel:
    """This run's own, one epoch above the last rollout's: a run that is retried is another driver than its first attempt."""
    last = read(serving)
    return Wheel(owner=record.run or record.id, epoch=last.epoch + 1 if last else 1)


def unsupported(file: ReleaseFile) -> Iterator[Line]:
    """What the file asks and this version does not do yet: what production's safety rests on blocks, the rest is named."""
    hooks, canary, verify, build = file.hooks, file.canary, file.verify, file.build
    blocking_ = {
        "build: false is not there yet: this version builds every image": build is None,
        "build.target and build.secrets are not there yet: the image would be another": build and (build.target or build.secrets),
        "canary.approve is not there yet: release with until: verified, and promote by hand": canary and canary.approve is not None,
        "hooks are not run yet": hooks.before_build or hooks.before_traffic or hooks.after_promotion or hooks.after_rollback,
    }
    named = {
        "verify: openapi, version, static, pages and websockets are not checked yet": verify.websockets
        or verify.version or verify.pages or verify.openapi or verify.static,
        "canary.evidence: monitoring is not there yet: evidence comes from the request log": canary and canary.evidence == "monitoring",
        "validate.on_worse: a fresh release is not judged yet, so nothing goes back later": file.validation.on_worse == "rollback",
        "deploy.env.plain_secrets: the env file is not searched for secrets yet": file.deploy.env.plain_secrets == "forbid",
        "escalate.notify: nobody is notified yet": file.escalate.notify,
        "deploy.secrets: latest is passed on as it is, not pinned to a number yet": any(
            s.version == "latest" for s in file.deploy.secrets.values()),
        "verify: headers that hold a secret are left out yet": any(h.secret for check in verify.http for h in check.headers.values()),
        "verify: metrics that are new are not compared with what serves yet": any(
            group.new for check in verify.http for group in check.metrics),
        "canary.early: no step is left before its bake yet": canary and canary.early,
        "canary.on_orphan: continue is not there yet: the watch restores": canary and canary.on_orphan == "continue",
    }  # fmt: skip
    for asked, blocks in ((blocking_, True), (named, False)):
        yield from (Line(kind="note", what=what, blocks=blocks) for what, wanted in asked.items() if wanted)


def refusal(plan: Plan, serving: Serving) -> Refused | None:
    """Everything that says no to this plan, in one error; None when it may go on."""
    require_free(serving, plan.started)
    lines = [f'{b} (allow it with deploy.allow: ["{b.allow}"])' if b.allow else b.what for b in plan.blockers]
    return against(plan.service, plan.findings, *lines)


def against(service: ServiceName, findings: tuple[Finding, ...], *more: str) -> Refused | None:
    """What is red, and what else is said, as one refusal; None where there is nothing. What a finding has told already is told once."""
    reasons = [f"{finding.name}: {finding.detail or finding.outcome}" for finding in blocking(findings)]
    reasons += [text for text in more if not any(text in reason for reason in reasons)]
    if not reasons:
        return None
    what = reasons[0] if len(reasons) == 1 else "\n  - ".join([f"{len(reasons)} things stand against it:", *reasons])
    remedy = "nothing was built, and production is untouched; mend this and release again"
    return Refused(what, where=str(service), remedy=remedy, evidence=findings)
