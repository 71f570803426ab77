"""What is true of the whole package: sizes, names, imports, and how files and children are made."""

from __future__ import annotations

import ast
import importlib.util
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import feldspar

ROOT = Path(feldspar.__file__).parent
EXCEPT: tuple[str, ...] = ()
"""Files whose names, and ways to write, are not held to this yet."""
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 435


@cache
def trees() -> dict[Path, ast.Module]:
    """Every file of the package, parsed."""
    return {p: ast.parse(p.read_text(encoding="utf-8")) for p in sorted(ROOT.rglob("*.py"))}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def is_excepted(path: Path) -> bool:
    return path.relative_to(ROOT).as_posix() in EXCEPT


def imported(tree: ast.Module, modules: set[str]) -> Iterator[str]:
    """Our modules that one imports, at its top or within functions; not those for types alone."""
    for node in running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            below = [name for name in named if name in modules]
            yield from below
            if len(below) < len(named):
                yield node.module


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from running(child)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, if there is one: what is left when all that import nothing of what
    is left are taken away, again and again."""
    left = {name: set(needs) for name, needs in graph.items()}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {name_of(path) for path in trees()}
    graph = {
        name_of(path): set(imported(tree, modules)) - {name_of(path)}
        for path, tree in trees().items()
    }
    assert len(graph) > 200
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"]
    assert circle(graph) == []


def test_no_function_is_longer_than_a_screen_and_no_file_than_its_reader() -> None:
    long = [
        where(path, node)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    sizes = {path: path.read_text(encoding="utf-8").count("\n") for path in trees()}
    long += [str(path.relative_to(ROOT)) for path, size in sizes.items() if size > MAX_FILE_LINES]
    assert long == []


def test_a_class_has_a_name_of_its_own() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not is_excepted(path):
                places[node.name].append(where(path, node))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    """Calls of a method of a name."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and node.func.attr == name:
                yield path, node


@pytest.mark.parametrize("name", ["replace", "rename"])
def test_one_file_alone_moves_what_is_written_to_its_place(name: str) -> None:
    """`text.replace(a, b)` has two arguments; `path.replace(other)` has one."""
    moves = [
        where(path, call)
        for path, call in calls(name)
        if path != ROOT / "files.py" and not is_excepted(path)
        if len(call.args) == 1 and not call.keywords
    ]
    assert moves == []


def test_children_import_nothing_from_the_working_directory() -> None:
    open_to_all = []
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.List)
                and node.elts
                and ast.unparse(node.elts[0]) == ("sys.executable")
            ):
                words = {e.value for e in node.elts if isinstance(e, ast.Constant)}
                if words & {"-m", "-c"} and not words & {"-P", "-I"}:
                    open_to_all.append(where(path, node))
    assert open_to_all == []


def test_no_script_takes_the_name_of_a_module() -> None:
    """A script's folder comes first where modules are looked for: for all scripts beside it."""
    scripts = [
        path for folder in ("benchmarks", "docs") for path in (ROOT.parent / folder).glob("*.py")
    ]
    assert scripts
    specs = {path.name: importlib.util.find_spec(path.stem) for path in scripts}
    assert not [name for name, spec in specs.items() if spec is not None and spec.origin]
