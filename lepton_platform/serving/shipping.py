"""Which code a Bento holds: the service's and the task's modules and all of this package that they import.

But for what needs the tools of training: a task's ``preprocess`` is shared with training, and what it imports for that
alone, inside functions, has no use where those tools are not installed.
"""

import ast
import shutil
from pathlib import Path

PACKAGE = "lepton_platform"
TRAINING = {"torch", "torchvision", "transformers", "sklearn", "huggingface_hub"}  # never installed where a Bento runs
ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the package


def module_file(module: str) -> Path | None:
    """The file of a module of this package, or ``None``: it is an attribute, not a module."""
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported(path: Path) -> set[str]:
    """What a file imports, also inside functions; not what it names for types only."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text("utf-8"), str(path))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))
    return found


def trains(path: Path) -> bool:
    """Does a file need the tools of training?"""
    return not TRAINING.isdisjoint(name.split(".")[0] for name in imported(path))


def closure(modules: list[str]) -> list[str]:
    """The modules, what they import of this package at any depth, and the packages that hold them; sorted."""
    reached: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module in reached:
            continue
        reached.add(module)
        path = module_file(module)
        assert path is not None, module
        found = {name: module_file(name) for name in imported(path) if name.split(".")[0] == PACKAGE}
        pending.extend(name for name, file in found.items() if file is not None and not trains(file))
        pending.extend([module.rpartition(".")[0]] if "." in module else [])
    return sorted(reached)


def ship(modules: list[str], target: Path) -> None:
    """Copy the closure of ``modules`` below ``target``, byte for byte."""
    for module in closure(modules):
        source = module_file(module)
        assert source is not None
        copy = target / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
