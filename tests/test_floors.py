"""Imports go down: errors, config, model; the pure modules; the clients; tasks; flows. Who breaks it is named with file and line."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("flows", "tasks", "relais", "localcloud", "setup")
FOUNDATION = ("relais.errors", "relais.config", "relais.model")


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Each module of a package by its dotted name."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


EVERY = [pytest.param(name, path, id=name) for package in OURS for name, path in modules(package)]


def imports(name: str, path: Path) -> Iterator[tuple[str, int]]:
    """What a module imports, by full dotted name, with the line; `from a import b` gives a.b, which may be a module or a name in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*up, *([node.module] if node.module else [])])
            yield from ((f"{source}.{alias.name}", node.lineno) for alias in node.names)


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of these packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def allowed(importer: str, imported: str) -> bool:
    """Whether a module may import this, as the floors say."""
    if not within(imported, *OURS, "prefect"):
        return True
    top = importer.partition(".")[0]
    if top in ("localcloud", "setup"):
        return within(imported, top)
    if within(imported, "localcloud", "setup"):
        return False
    if top == "flows":
        return True
    if top == "tasks":
        elsewhere = within(imported, "flows") or (imported != "tasks" and within(imported, "tasks"))
        return not elsewhere or within(imported, "tasks.effects", importer)
    return _allowed_in_relais(importer, imported)


def _allowed_in_relais(importer: str, imported: str) -> bool:
    if not within(imported, "relais"):
        return False
    if within(importer, "relais.__main__", "relais.clients"):
        return True
    if within(importer, *FOUNDATION):
        return within(imported, *FOUNDATION)
    return not within(imported, "relais.clients")


@pytest.mark.parametrize(("name", "path"), EVERY)
def test_a_module_imports_from_its_own_floor_or_below(name: str, path: Path) -> None:
    wrong = [f"{path.relative_to(ROOT)}:{line} imports {imported}" for imported, line in imports(name, path) if not allowed(name, imported)]
    assert not wrong, "\n".join(wrong)


READERS_OF_THE_ENVIRONMENT = [pytest.param(name, path, id=name) for top in ("flows", "tasks", "relais") for name, path in modules(top)]


@pytest.mark.parametrize(("name", "path"), READERS_OF_THE_ENVIRONMENT)
def test_only_the_configuration_reads_the_environment(name: str, path: Path) -> None:
    if within(name, "relais.config"):
        return
    read = list(reads_environment(ast.parse(path.read_text(encoding="utf-8"))))
    assert not read, "\n".join(f"{path.relative_to(ROOT)}:{line} reads the environment: make it a field of relais.config" for line in read)


def reads_environment(tree: ast.AST) -> Iterator[int]:
    """The lines where a module reads the process's environment."""
    names = ("environ", "environb", "getenv", "getenvb")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names and isinstance(node.value, ast.Name) and node.value.id == "os":
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "os" and any(alias.name in names for alias in node.names):
            yield node.lineno


@pytest.mark.parametrize(
    ("importer", "imported", "yes"),
    [
        ("flows.release", "tasks.traffic.shift", True),
        ("flows.release", "relais.clients.run", True),
        ("flows.release", "localcloud.state", False),
        ("tasks.traffic", "tasks.effects.effect", True),
        ("tasks.traffic", "tasks.revision", False),
        ("tasks.traffic", "flows.release", False),
        ("tasks.traffic", "relais.clients.run", True),
        ("relais.plan", "prefect.flow", False),
        ("relais.plan", "relais.clients.run", False),
        ("relais.plan", "relais.model.Split", True),
        ("relais.model", "relais.plan", False),
        ("relais.config.parse", "relais.config.sizes", True),
        ("relais.clients.run", "relais.plan", True),
        ("localcloud.state", "relais.errors", False),
        ("setup.clone", "relais.errors", False),
    ],
)
def test_the_floors_are_these(importer: str, imported: str, yes: bool) -> None:
    assert allowed(importer, imported) is yes
