"""YAML as it was written: scalars stay the text of the file, keys know their lines, and everything that is wrong is told at once."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from relais.config.contract import METHODS
from relais.config.file import ReleaseFile
from relais.config.problems import Keys, Problem, bad_input, explain, path_text
from relais.config.scalars import Bare, Wrong, env_name
from relais.errors import BadInput

LARGEST = 1_000_000
"""Bytes of a release file or an env file."""
_DEEPEST, _MOST = 40, 50_000
_TOO_MANY = "too many values"
_LARGEST_ENV = 32 * 1024


def load(path: Path) -> ReleaseFile:
    """The release file at a path; BadInput lists everything that is wrong with it."""
    return parse(_bytes(path), name=str(path))


def parse(data: bytes, name: str = "release.yaml") -> ReleaseFile:
    """A release file from its bytes."""
    found, problems = examine(data, name)
    if found is None:
        raise bad_input(problems, name)
    return found


def examine(data: bytes, name: str) -> tuple[ReleaseFile | None, list[Problem]]:
    """A release file from its bytes, or what is wrong with it, in the order of its lines."""
    tree = _Tree(name, "write at least service, project, region and repository")
    value = tree.read(data)
    found: ReleaseFile | None = None
    if not tree.broken:
        try:
            found = ReleaseFile.model_validate(value)
        except ValidationError as error:
            told = {problem.key for problem in tree.in_order()}
            for keys, what, remedy in explain(error, ReleaseFile):
                if path_text(keys) not in told:
                    tree.problem(tree.as_written(keys), what, remedy)
    return (None if tree.problems else found), tree.in_order()


def check(path: Path) -> list[Problem]:
    """Everything that is wrong with the release file at a path."""
    try:
        return examine(_bytes(path), str(path))[1]
    except BadInput as error:
        return [Problem(where=error.where, key="", what=error.what, remedy=error.remedy)]


def load_env_file(path: Path) -> dict[str, str]:
    """Environment variables from a YAML mapping, each value the text that was written."""
    name = str(path)
    tree = _Tree(name, "write NAME: value, one a line")
    value = tree.read(_bytes(path))
    env: dict[str, str] = {}
    if not tree.broken:
        told = {problem.key for problem in tree.in_order()}
        for key, text in value.items():
            if path_text((key,)) in told:
                continue
            try:
                env[env_name(key)] = _env_value(text)
            except Wrong as wrong:
                tree.problem((key,), wrong.what, wrong.remedy)
    if tree.problems:
        raise bad_input(tree.in_order(), name)
    return env


def _env_value(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong(f"must be a text, not {'a mapping' if isinstance(value, dict) else 'a list'}", "write JSON as a text, in single quotes")
    if len(value.encode()) > _LARGEST_ENV:
        raise Wrong(f"is {len(value.encode())} bytes, and Cloud Run takes 32 KB", "put it into a file of the image, or into a secret")
    if "\0" in value:
        raise Wrong("holds a NUL character", "remove it")
    if swallowed := re.search(r"[^\s;,&|]\s+([A-Z][A-Z0-9_]*)=", value):
        raise Wrong(f"seems to swallow {swallowed[1]}", f"write {swallowed[1]} as a key of its own")
    return str(value)


def _bytes(path: Path) -> bytes:
    name = str(path)
    try:
        if path.is_dir():
            raise BadInput("is a directory", where=name, remedy="name the file in it")
        if not path.exists():
            raise BadInput("there is no such file", where=name, remedy="name a file that exists")
        if not path.is_file():
            raise BadInput("is not a file", where=name, remedy="name a regular file")
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadInput(f"cannot be read: {reason}", where=name, remedy="look at the path and its permissions") from None


class _Loader(yaml.BaseLoader):
    """Every scalar is a text, and there is an end to them."""

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > _MOST:
            raise yaml.MarkedYAMLError(problem=_TOO_MANY)
        return super().compose_node(parent, index)


@dataclass
class _Tree:
    """A YAML file on its way to values: the lines of its keys, and what is wrong with it."""

    name: str
    remedy: str
    lines: dict[Keys, int] = field(default_factory=dict)
    problems: list[tuple[int, Problem]] = field(default_factory=list)
    broken: bool = False
    count: int = 0

    def problem(self, keys: Keys, what: str, remedy: str, line: int = 0) -> None:
        """Something is wrong at a key; its line is the key's, or that of the nearest key above it."""
        if not line:
            line = next((self.lines[keys[:end]] for end in range(len(keys), -1, -1) if keys[:end] in self.lines), 1)
        self.problems.append((line, Problem(where=f"{self.name}:{line}", key=path_text(keys), what=what, remedy=remedy)))

    def fail(self, what: str, remedy: str, line: int = 0) -> None:
        """Nothing can be read."""
        self.broken = True
        self.problems.append((line, Problem(where=f"{self.name}:{line}" if line else self.name, key="", what=what, remedy=remedy)))

    def in_order(self) -> list[Problem]:
        """What is wrong, from the first line to the last, each once."""
        return list(dict.fromkeys(problem for _, problem in sorted(self.problems, key=lambda entry: entry[0])))

    def as_written(self, keys: Keys) -> Keys:
        """The path of a request is written as the value of its method."""
        if keys and keys[-1] in ("path", "method") and keys not in self.lines:
            return next(((*keys[:-1], method) for method in METHODS if (*keys[:-1], method) in self.lines), keys)
        return keys

    def read(self, data: bytes) -> dict[str, Any]:
        """The mapping that the file is."""
        if len(data) > LARGEST:
            self.fail("is larger than 1 MB", "name the release file")
            return {}
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.fail("is not UTF-8", "save it as UTF-8", data[: error.start].count(b"\n") + 1)
            return {}
        try:
            node = yaml.compose(text, Loader=_Loader)
            value = self._value(node, (), 0) if node else None
        except yaml.YAMLError as error:
            self._syntax(error, text)
            return {}
        except RecursionError:
            self.fail("is nested too deeply", "write it flatter")
            return {}
        except (ValueError, OverflowError):
            self.fail("holds an escape that is no character", r"write \uXXXX in double quotes only for characters that exist")
            return {}
        if node is None or value is None:
            self.fail("is empty", self.remedy)
        elif not isinstance(value, dict):
            kind = "a list" if isinstance(value, list) else "a text"
            self.fail(f"is {kind}, not a mapping", self.remedy, node.start_mark.line + 1)
        return value if isinstance(value, dict) else {}

    def _syntax(self, error: yaml.YAMLError, text: str) -> None:
        if isinstance(error, yaml.reader.ReaderError):
            self.fail("holds a character that YAML does not allow", "remove it", text[: int(error.position)].count("\n") + 1)
            return
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = str(getattr(error, "problem", None) or getattr(error, "context", None) or "cannot be read")
        remedy = "look at this line and the one above: indentation, quotes, brackets, `: `"
        if problem == _TOO_MANY:
            problem, remedy = f"holds {problem}", "write fewer"
        elif "'\\t'" in problem:
            problem, remedy = "a tab where YAML wants spaces", "indent with spaces"
        elif "expected a single document" in str(getattr(error, "context", "")):
            problem, remedy = "holds more than one document", "remove what follows ---"
        self.fail(f"is not YAML: {problem}" if remedy.startswith("look") else problem, remedy, mark.line + 1 if mark else 0)

    def _value(self, node: yaml.Node, keys: Keys, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(keys, line)
        self.count += 1
        if depth > _DEEPEST or self.count > _MOST:
            if not self.broken:
                what = "is nested too deeply, or an alias holds itself" if depth > _DEEPEST else f"holds {_TOO_MANY}"
                self.fail(what, "write it flatter", line)
            return None
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.rpartition(":")[2] not in ("str", "seq", "map"):
            self.problem(keys, f"has the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}", "remove the tag", line)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*keys, index), depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, keys, line) if isinstance(node, yaml.ScalarNode) else None

    def _scalar(self, node: yaml.ScalarNode, keys: Keys, line: int) -> str | None:
        text = str(node.value)
        if any("\ud800" <= char <= "\udfff" for char in text):
            self.problem(keys, "holds half a character", "write the character itself", line)
            return None
        if node.style is not None:
            return text
        if text in ("", "~", "null", "Null", "NULL"):
            if not any(str(key).startswith("json") or key == "send" for key in keys) and keys:
                self.problem(keys, "has no value", 'give it one, or remove the key; "" is the empty text', line)
            return None
        return Bare(text)

    def _mapping(self, node: yaml.MappingNode, keys: Keys, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        own: dict[str, int] = {}
        merged: list[Any] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or any("\ud800" <= char <= "\udfff" for char in key_node.value):
                self.problem(keys, "has a key that is not a text", "write key: value", line)
                continue
            key = str(key_node.value)
            if key == "<<" and key_node.style is None:
                merged.append((value_node, line))
                continue
            if key in own:
                self.problem((*keys, key), f"is there twice, first on line {own[key]}", "keep one of them", line)
                continue
            own[key] = line
            self.lines.setdefault((*keys, key), line)
            found[key] = self._value(value_node, (*keys, key), depth + 1)
        for value_node, line in merged:
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in sources:
                if not isinstance(source, yaml.MappingNode):
                    self.problem(keys, "merges what is not a mapping", "write <<: *name of a mapping", line)
                    continue
                found = {**self._mapping(source, keys, depth + 1), **found}
        return found
