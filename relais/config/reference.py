"""The reference page of the release file, rendered from its models: what a key takes, its default, its sentence."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, get_args

from pydantic.fields import FieldInfo

from relais.config.file import ReleaseFile, json_schema
from relais.config.scalars import duration_text
from relais.config.section import FACTS, NAMES, Section

BLOCKED: Final = "**Not there yet**: it blocks the release."
NAMED: Final = "**Not there yet**: the plan says so, and the release goes on."
SILENT: Final = "**Not there yet**: it is read, and nothing is done with it."
NOT_YET: Final[Mapping[tuple[str, str], str]] = {
    ("ReleaseFile", "hooks"): BLOCKED,
    ("ReleaseFile", "build"): "`false` is **not there yet**: it blocks the release.",
    ("ReleaseFile", "verify"): "So far on the tagged URL only, not on the image itself.",
    ("Deploy", "image"): BLOCKED,
    ("Canary", "approve"): BLOCKED,
    ("Verify", "openapi"): NAMED,
    ("Verify", "version"): NAMED,
    ("Verify", "static"): NAMED,
    ("Verify", "pages"): NAMED,
    ("Verify", "websockets"): NAMED,
    ("Escalate", "notify"): NAMED,
    ("Build", "target"): BLOCKED,
    ("Build", "secrets"): BLOCKED,
    ("MetricGroup", "new"): NAMED,
    ("Header", "secret"): "**Not there yet**: a header that needs a secret is left out.",
    ("EnvRules", "plain_secrets"): "`forbid` is **not there yet**: the plan says so, and the release goes on.",
    ("SecretVersion", "version"): "**Not there yet**: it is passed on as written, neither resolved nor looked up.",
    ("Canary", "early"): NAMED,
    ("Canary", "on_orphan"): "`continue` is **not there yet**: the watch restores.",
    ("Canary", "evidence"): "**Not there yet**: evidence comes from the request log, and from probes.",
    ("JudgeSettings", "alpha"): SILENT,
    ("JudgeSettings", "margin"): SILENT,
    ("JudgeSettings", "ratio"): "**Not there yet**: worse is more than 3 times the stable rate.",
    ("JudgeSettings", "beta"): SILENT,
    ("Validation", "watch"): "So far this only keeps the stable revision's tag that long.",
    ("Validation", "on_worse"): "`rollback` is **not there yet**: the plan says so, and the release goes on.",
}
"""What this version reads and does not do, by section and field; an entry goes when the work is there."""

HEAD: Final = """# The release file

`release.yaml` lies in the root of the service's own repository. `python -m relais check release.yaml` says what is wrong with it, with
line and nearest right key; `python -m relais schema` prints its JSON Schema for editors. This page is rendered from the same models
(`python -m relais reference EXAMPLE > docs/release-file.md`), so it says what this version knows.

- **Required** are `service`, `project`, `region` and `repository`; everything else has a default or is left alone.
- A key that is not known is an error. An empty value is none: leave the key out.
- A *duration* is a number and a unit (`90s`, `5m`, `1h30m`), a *size* likewise (`512Mi`, `1GB`).
- Where a list may stand, its only entry may stand alone.
- *Patterns* are plain texts, or regular expressions between slashes: `/Worker \\d+ started/`.
- YAML is read as texts first: `588c5dc`, `yes`, `1e3` mean what the key needs, and what is not clear is refused.
- `{{placeholders}}` known from the start: {names}. Where a revision is there already (documents, smoke commands): also {facts}.
- Secrets never stand in this file: it names Prefect Secret blocks, or versions in Secret Manager.
"""


def reference(example: str = "") -> str:
    """The whole page, as Markdown; `example` is the text of a release file to show first."""
    schema, where = json_schema(), dict(_sections(ReleaseFile, ""))
    known = {**schema["$defs"], ReleaseFile.__name__: schema}
    head = HEAD.replace("{names}", _list(NAMES)).replace("{facts}", _list(FACTS[len(NAMES) :])).replace("{{", "{").replace("}}", "}")
    shown = f"## An example\n\n```yaml\n{example.rstrip()}\n```\n" if example else ""
    tables = (_section(section, path, _mapping(known[section.__name__])["properties"]) for section, path in where.items())
    return "\n".join(filter(None, (head, shown, *tables)))


def _sections(section: type[Section], path: str) -> Iterator[tuple[type[Section], str]]:
    """Every section once, in the order of the file, with the key path where it is met first."""
    seen: dict[type[Section], str] = {section: path}
    for name, field in section.model_fields.items():
        here = f"{path}.{field.alias or name}".lstrip(".")
        for inner in _within(field.annotation):
            for found, at in _sections(inner, here):
                seen.setdefault(found, at)
    yield from seen.items()


def _within(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _within(part)


def _section(section: type[Section], path: str, properties: Mapping[str, Any]) -> str:
    anchor, title = f'<a id="{section.__name__.lower()}"></a>', f"## {section.__name__}: `{path}`" if path else "## The file"
    rows = [_row(section, name, field, properties[field.alias or name]) for name, field in section.model_fields.items()]
    doc = " ".join((section.__doc__ or "").split())
    return "\n".join((anchor, "", title, "", doc, "", "| key | takes | default | |", "|---|---|---|---|", *rows, ""))


def _row(section: type[Section], name: str, field: FieldInfo, schema: Mapping[str, Any]) -> str:
    said = " ".join(filter(None, (field.description, NOT_YET.get((section.__name__, name)))))
    cells = (f"`{field.alias or name}`", _takes(schema), _default(field, schema), said)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    if field.is_required():
        return "**required**"
    if isinstance(field.default, Section):
        return "`true`" if {"type": "boolean"} in schema.get("anyOf", ()) else ""
    return "" if field.default is None or field.default_factory is not None else _value(field.default)


def _value(value: Any) -> str:
    if isinstance(value, (tuple, Mapping)):
        return _list(value)
    text = duration_text(value) if isinstance(value, timedelta) else str(value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def _takes(schema: Mapping[str, Any]) -> str:
    """What a key takes, in words, from its JSON Schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "anything" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if ways := schema.get("anyOf"):
        if ways[-1].get("items") == ways[0]:
            return f"{_takes(ways[0])}, or a list of them"
        return " or ".join(map(_takes, ways))
    if known := schema.get("enum") or ("const" in schema and [schema["const"]]):
        return " or ".join(map(_value, known))
    kind = schema.get("type", "")
    return _plain(schema, kind if isinstance(kind, str) else kind[0])


def _plain(schema: Mapping[str, Any], kind: str) -> str:
    such = f", such as {_list(schema['examples'])}" if "examples" in schema else ""
    if kind == "array":
        return f"list of {_takes(schema['items'])}"
    if kind == "object":
        return f"mapping of names to {_takes(schema['additionalProperties'])}"
    if kind in ("integer", "number"):
        return f"{'whole ' * (kind == 'integer')}number{_span(schema)}{such}"
    return {"boolean": "`true` or `false`", "": "anything"}.get(kind, f"text{such}")


def _span(schema: Mapping[str, Any]) -> str:
    least = next((schema[key] for key in ("minimum", "exclusiveMinimum", "ge", "gt") if key in schema), None)
    most = next((schema[key] for key in ("maximum", "exclusiveMaximum", "le", "lt") if key in schema), None)
    return (f" from {least}" if least is not None else "") + (f" to {most}" if most is not None else "")


def _mapping(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mapping form of a section that may also be written in a short form."""
    return schema if "properties" in schema else _mapping(schema["anyOf"][-1])


def _list(values: Any) -> str:
    return ", ".join(f"`{value}`" for value in values)
