"""The floors of the house: an import never points up, and every import is absolute."""

import ast
from pathlib import Path

import pytest

FLOORS = {
    "layers": {"layers"},
    "datasets": {"datasets"},
    "losses": {"layers", "losses"},
    "models": {"layers", "models"},
    "inspection": {"layers", "datasets", "losses", "models", "inspection"},
    "training": {"layers", "datasets", "losses", "models", "inspection", "training"},
}
# Loaded where they are used and nowhere else, so that importing a package costs NumPy and nothing more.
LATE = {"matplotlib", "tqdm", "safetensors", "mpi4py", "urllib", "torch", "threadpoolctl"}
ROOT = Path(__file__).parent.parent
FILES = [path for package in FLOORS for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path, *, inside=True):
    """(module, whether the import is relative); without `inside`, those of the module's own level alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree) if inside else tree.body:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module == "backhand":  # from backhand import datasets
                yield from ((f"backhand.{alias.name}", False) for alias in node.names)
            else:
                yield module, node.level > 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_absolute_and_never_point_up(path):
    package = path.relative_to(ROOT).parts[0]
    for module, relative in imports(path):
        assert not relative, f"from .{module} is relative"
        if module.startswith("backhand."):
            assert module.split(".")[1] in FLOORS[package], f"{package} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_only_sometimes_needed_is_imported_where_it_is_used(path):
    early = {module.split(".")[0] for module, _ in imports(path, inside=False)}
    assert early.isdisjoint(LATE), f"{early & LATE} at the top"
