"""The code that a stage runs: found by following imports, not declared by hand.

A stage depends on its function's module, on the task's modules that it is given, and on everything of this
package that these import, at any depth and also inside functions. What only carries a stage (settings, the
vocabulary of ``stage.py``) does not change its bytes and is left out, but where the output holds the code itself.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from lepton_platform.pipeline.stages import Stage
from lepton_platform.serving.shipping import PACKAGE, ROOT, imported, module_file
from lepton_platform.tasks import part_name

CARRIERS = frozenset({PACKAGE, f"{PACKAGE}.settings", f"{PACKAGE}.stage", f"{PACKAGE}.database", f"{PACKAGE}.tasks"})


@cache
def _imports(module: str) -> frozenset[str]:
    path = module_file(module)
    assert path is not None, module
    return frozenset(name for name in imported(path) if name.split(".")[0] == PACKAGE and module_file(name))


@cache
def _holds_code(module: str) -> bool:
    """Is it more than a docstring? A package's ``__init__`` often is not."""
    path = module_file(module)
    return path is not None and any(not isinstance(n, ast.Expr) for n in ast.parse(path.read_text("utf-8")).body)


def closure(*modules: str, whole: bool = False) -> list[str]:
    """The modules and all of this package that they import, sorted.

    ``whole``: with the carriers, and the packages that hold the modules, if only a docstring is in them.
    """
    reached: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module in reached or (module in CARRIERS and not whole):
            continue
        reached.add(module)
        pending.extend(_imports(module))
        if whole and "." in module:
            pending.append(module.rpartition(".")[0])
    return sorted(module for module in reached if whole or _holds_code(module))


def stage_modules(stage: Stage, task: str) -> list[str]:
    parts = (part_name(task, part) for part in stage.parts)
    return closure(stage.function.split(":")[0], *parts, whole=stage.ships_code)


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
