"""The shape of the house: which way imports point, and that the three doors lead to the package."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import paragenesis

PACKAGE = Path(paragenesis.__file__).parent
FLOORS = [  # from the ground up; a module may import its own floor and those below
    ("errors", "settings", "crystals", "naming", "versions"),
    ("objectives",),
    ("engine",),
    ("actors", "testing"),
    ("launch", "doctor", "terminal"),
    ("cli", "commands", "__main__"),
]


def floor_of(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    return next((i for i, parts in enumerate(FLOORS) if part in parts), len(FLOORS))


def imports_of(path: Path) -> set[str]:
    """Modules imported anywhere in a file, inside functions, too; imports for the type checker alone do not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_no_import_climbs() -> None:
    climbing = [
        f"{name} imports {target}"
        for name, path in modules().items()
        if name != "paragenesis"
        for target in imports_of(path)
        if target.startswith("paragenesis.") and floor_of(target) > floor_of(name)
    ]
    assert not climbing


def test_no_import_cycle() -> None:
    known = modules()
    graph = {
        name: {t for t in imports_of(path) if t in known and t != name and not name.startswith(f"{t}.")}
        for name, path in known.items()
    }
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        assert name not in trail, f"cycle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph[name]):
                walk(target, [*trail, name])
            done.add(name)

    for name in graph:
        walk(name, [])


def test_only_actors_import_ray() -> None:
    others = [
        name
        for name, path in modules().items()
        if ".actors" not in name and any(t == "ray" or t.startswith("ray.") for t in imports_of(path))
    ]
    assert not others


def test_public_surface_is_small_sorted_and_there() -> None:
    names = paragenesis.__all__
    assert names == sorted(set(names))
    assert len(names) <= 25
    for name in names:
        assert getattr(paragenesis, name).__doc__, f"{name} has no docstring"


def test_no_file_is_crowded() -> None:
    crowded = {str(p): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 500}
    assert not crowded


def test_root_links_lead_into_the_package() -> None:
    root = PACKAGE.parent
    for door in ("engine", "actors", "objectives"):
        if (root / door).exists():
            assert (root / door).resolve() == PACKAGE / door


def test_floors_are_all_named() -> None:
    unknown = [name for name in modules() if name != "paragenesis" and floor_of(name) == len(FLOORS)]
    assert not unknown
    assert all(set(a).isdisjoint(b) for a, b in pairwise(FLOORS))
