"""The code that a stage runs: found by following imports, not declared by hand.

A stage depends on its function's module, on the task's modules that it is given, and on everything of this
package that these import, at any depth and also inside functions. What only carries a stage (settings, the
vocabulary of ``stage.py``) does not change its bytes and is left out.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from lepton_platform.pipeline.stages import Stage
from lepton_platform.tasks import part_name

PACKAGE = "lepton_platform"
ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the package
CARRIERS = frozenset({PACKAGE, f"{PACKAGE}.settings", f"{PACKAGE}.stage", f"{PACKAGE}.database", f"{PACKAGE}.tasks"})


@cache
def module_file(module: str) -> Path | None:
    """The file of a module of this package, or ``None``: it is an attribute, not a module."""
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _only_for_types(node: ast.If) -> bool:
    return "TYPE_CHECKING" in ast.dump(node.test)


def _imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
        children = node.orelse if isinstance(node, ast.If) and _only_for_types(node) else ast.iter_child_nodes(node)
        pending.extend(children)
    return {name for name in found if name.split(".")[0] == PACKAGE and module_file(name)}


@cache
def _imports(module: str) -> frozenset[str]:
    path = module_file(module)
    assert path is not None, module
    return frozenset(_imported(ast.parse(path.read_text(encoding="utf-8"), str(path))))


def _holds_code(module: str) -> bool:
    """Is it more than a docstring? A package's ``__init__`` often is not."""
    path = module_file(module)
    return path is not None and any(not isinstance(n, ast.Expr) for n in ast.parse(path.read_text("utf-8")).body)


def closure(*modules: str) -> list[str]:
    """The modules and all of this package that they import, sorted."""
    reached: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module in reached or module in CARRIERS:
            continue
        reached.add(module)
        pending.extend(_imports(module))
    return sorted(filter(_holds_code, reached))


def stage_modules(stage: Stage, task: str) -> list[str]:
    return closure(stage.function.split(":")[0], *(part_name(task, part) for part in stage.parts))


def stage_files(stage: Stage, task: str) -> list[Path]:
    """The files of code that the stage runs, relative to the folder that holds the package."""
    return [path.relative_to(ROOT) for m in stage_modules(stage, task) if (path := module_file(m)) is not None]


def code_hash(stage: Stage, task: str) -> str:
    """SHA-256 over names and contents of the stage's code, 20 hex digits."""
    digest = hashlib.sha256()
    for path in stage_files(stage, task):
        content = (ROOT / path).read_bytes()
        digest.update(f"{path.as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:20]


def forget() -> None:
    """Read the code anew: a long-lived process whose files were edited."""
    module_file.cache_clear()
    _imports.cache_clear()
