"""Write the reference pages that are made from the code: ``python docs/generate.py`` (``--check``: are they current?).

The commands come from the Typer application, the settings and the parameters from their models. ``tests/test_docs.py``
fails when a page is older than the code.
"""

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lepton_platform.tasks import task_names

REFERENCE = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code; do not edit. -->\n"
NO_OPTION = ("--help",)
# defaults that depend on the machine, in words
MADE_HERE = {
    "workspace": "the nearest folder at or above the current one that holds `params.yaml`",
    "cache_dir": "`$XDG_CACHE_HOME/lepton`, else `~/.cache/lepton`",
}
# what other models of the task or a task's parts check in a section: section → (title, module, class)
ALSO = {
    "train": [
        ("train.network of a task that labels texts", "lepton_platform.models.text_classifier", "TextParams"),
        ("train.network of a task that labels pictures", "lepton_platform.models.image_classifier", "ImageParams"),
        ("train.network of a task that finds boxes", "lepton_platform.models.detection_params", "DetectionParams"),
    ],
    "serve": [("serve.rollout", "lepton_platform.serving.params", "RolloutParams")],
}
for _section, _model in (("source", "SourceParams"), ("contract", "ContractParams")):
    ALSO[_section] = [
        (f"{task}.{_section}", f"lepton_platform.tasks.{task}.{_section}", _model) for task in task_names()
    ]


def cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: object) -> str:
    return "`" + " ".join(str(text).split()).replace("|", "\\|") + "`"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]


def page(title: str, *lines: str) -> str:
    return "\n".join([NOTE, f"# {title}", "", *lines]).rstrip() + "\n"


# --- commands


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command with its full name, groups before their commands, in the order of ``--help``."""
    yield name, command
    for word, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {word}")


def describe(name: str, command: Any) -> list[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(command.get_usage(context).removeprefix("Usage:").split())
    lines = [f"{'#' * min(2 + name.count(' ') - 1, 3)} {name}" if " " in name else "## lepton", ""]
    lines += [inspect.cleandoc(command.help or ""), "", "```text", usage, "```", ""]
    records = [p.get_help_record(context) for p in command.params]
    rows = [(code(r[0]), cell(r[1])) for r in records if r and not r[0].startswith(NO_OPTION)]
    return lines + (table(("word", "meaning"), rows) if rows else [])


def cli() -> str:
    from typer.main import get_command

    from lepton_platform.cli.main import app

    found = [line for name, command in commands(get_command(app), "lepton") for line in describe(name, command)]
    return page(
        "The command line",
        "Exit codes: 0 done, 1 the work failed (a check, a gate, a service that does not answer), 2 wrong usage, 130",
        "stopped from the keyboard. An error is one paragraph on stderr; `--debug`, anywhere, shows its traceback.",
        "`lepton COMMAND --help` says the same as this page.",
        "",
        *found,
    )


# --- models


def type_name(kind: Any) -> str:
    """An annotation as a reader writes it in YAML or the environment."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " / ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if one is type(None) else type_name(one) for one in inner)
    if origin is not None:
        return f"{origin.__name__} of {', '.join(type_name(one) for one in inner)}"
    return "path" if kind is Path else "section" if _is_model(kind) else "any" if kind is Any else kind.__name__


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


def default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    if field.default_factory is not None:
        return MADE_HERE.get(name) or ("its own" if _is_model(field.annotation) else "`{}`")
    return "none" if field.default is None else '`""`' if field.default == "" else f"`{field.default}`"


def fields(model: type[BaseModel], without: type[BaseModel] = BaseModel) -> list[str]:
    """A row a field; those that ``without`` has are left out."""
    rows = [
        (f"`{name}`", type_name(field.annotation), default(name, field), cell(field.description or ""))
        for name, field in model.model_fields.items()
        if name not in without.model_fields
    ]
    return table(("name", "type", "default", "meaning"), rows)


def settings() -> str:
    from lepton_platform.settings import STORES, Settings

    model_fields = Settings.model_fields.items()
    rows = [
        (f"`LEPTON_{name.upper()}`", type_name(f.annotation), default(name, f), cell(f.description or ""))
        for name, f in model_fields
    ]
    return page(
        "Settings",
        "Read once a process: from the environment, then from the workspace's `.env`, then the default. `lepton init`",
        "writes an `.env` with which a plain `dg`, `dvc`, `feast` or `bentoml` typed in the folder finds the same stores.",
        "",
        *table(("variable", "type", "default", "meaning"), rows),
        f"The other tools' own variables {', '.join(f'`{name}`' for name in STORES)} say where they keep a workspace's",
        "state; where they are not set, they point into the workspace.",
    )


def parameters() -> str:
    from lepton_platform.monitoring.drift import DriftParams
    from lepton_platform.monitoring.quality import FeedbackParams
    from lepton_platform.monitoring.retraining import RetrainParams
    from lepton_platform.pipeline.stages import STAGES

    lines = []
    for stage in STAGES:
        module, name = stage.function.split(":")
        function = getattr(importlib.import_module(module), name)
        model = inspect.signature(function, eval_str=True).parameters["params"].annotation
        lines += [f"## {stage.params}", "", f"Of the stage `{stage.name}`: {stage.description}", ""]
        lines += fields(model)
        for title, where, what in ALSO.get(stage.params, []):
            found = getattr(importlib.import_module(where), what)
            lines += [f"### {title}", "", *fields(found, without=model)]
    lines += ["## drift", "", "Of the drift check, which is not part of the reproducible graph.", ""]
    lines += fields(DriftParams)
    lines += ["## feedback", "", "Of what people say of the answers; not part of the reproducible graph.", ""]
    lines += fields(FeedbackParams)
    lines += ["## retrain", "", "When to retrain; not part of the reproducible graph.", "", *fields(RetrainParams)]
    return page(
        "Parameters",
        "`params.yaml` has one mapping a task, in it one section a stage. A section may be empty: what is not said has",
        "its default. An unknown name is an error. The sections `source`, `contract` and `train.network` are the task's",
        "own, beside what all tasks have. The profiles `smoke`, `demo` and `full` are three files of",
        "parameters to start from: `lepton init DIR --profile smoke`; `deep_speech` is the task `prompts` from scratch,",
        "`rehearsal` what `lepton rehearse` plays with.",
        "",
        *lines,
    )


PAGES = {"cli.md": cli, "settings.md": settings, "params.md": parameters}


def stale() -> list[str]:
    """The pages that differ from what the code says."""
    paths = {name: REFERENCE / name for name in PAGES}
    current = {name: p.read_text(encoding="utf-8") if p.is_file() else None for name, p in paths.items()}
    return [name for name, render in PAGES.items() if render() != current[name]]


def main() -> int:
    old = stale()
    if "--check" in sys.argv[1:]:
        print(f"Out of date: {', '.join(old)}. `python docs/generate.py` writes them." if old else "Current.")
        return bool(old)
    REFERENCE.mkdir(exist_ok=True)
    for name in old:
        (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")
    print(f"Wrote {', '.join(old)}." if old else "Current.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
