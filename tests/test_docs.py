"""The documentation says what the code does: pages made from it are current, links lead somewhere, examples run."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *(ROOT / n for n in ("README.md", "CONTRIBUTING.md", "infra/README.md"))])
TUTORIAL = DOCS / "tutorial-add-your-task.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"^`(lepton_platform/\S+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
COMMAND = re.compile(r"(?:^\$ |`)lepton ([^`\n]+)", re.MULTILINE)


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_pages_are_what_the_code_says(generate):
    assert generate.stale() == [], "`python docs/generate.py` writes them"


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have in the usual renderers."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path):
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(found), f"{target} has no heading #{anchor}"


def known_words() -> dict[str, set[str]]:
    """Every command, without `lepton`, and its options."""
    from typer.main import get_command

    from lepton_platform.cli.main import app

    found: dict[str, set[str]] = {}
    pending = [("", get_command(app))]
    while pending:
        name, command = pending.pop()
        found[name] = {word for param in command.params for word in param.opts} | {"--help", "--debug"}
        pending += [(f"{name} {word}".strip(), child) for word, child in getattr(command, "commands", {}).items()]
    return found


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_that_is_named_exists(page: Path):
    known = known_words()
    first = {name.split()[0] for name in known if name}
    for line in COMMAND.findall(page.read_text(encoding="utf-8")):
        words = re.sub(r'"[^"]*"', "QUOTED", line.split("#")[0]).split()
        if words[0] in {"COMMAND", "[OPTIONS]"} or words[0].startswith("--"):
            continue
        assert words[0].split("|")[0] in first, f"lepton {line}: there is no such command"
        name = max((n for n in known if n and words[: len(n.split())] == n.split()), key=len, default=words[0])
        options = {word for word in words if word.startswith("--")}
        assert options <= known.get(name, set()), f"lepton {line}: there is no {options - known.get(name, set())}"


def test_decisions_are_numbered_and_have_context_decision_and_consequences():
    found = sorted((DOCS / "decisions").glob("*.md"))
    assert [path.name[:4] for path in found] == [f"{n:04d}" for n in range(1, len(found) + 1)]
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], path.name
        assert text.startswith(f"# {int(path.name[:4])}. ") and len(text.splitlines()) <= 60


def test_yaml_in_the_documentation_is_yaml():
    for page in PAGES:
        for kind, content in FENCE.findall(page.read_text(encoding="utf-8")):
            if kind == "yaml":
                assert isinstance(yaml.safe_load(content), dict), page


def test_the_sources_of_own_data_are_what_the_task_takes():
    from lepton_platform.tasks import load_part

    page = (DOCS / "howto" / "own-data.md").read_text(encoding="utf-8")
    sections = [yaml.safe_load(content) for kind, content in FENCE.findall(page) if kind == "yaml"]
    said = [(task, values["source"]) for section in sections for task, values in section.items()]
    kinds = [(task, load_part(task, "source").SourceParams.model_validate(values).kind) for task, values in said]
    language = [("sentiment", kind) for kind in ("table", "imdb", "hub")]
    speech = [("prompts", "table"), ("prompts", "librispeech")]
    assert kinds == [*language, ("trees", "coco"), ("digits", "folder"), *speech]


# --- examples


def environment(**more: str) -> dict[str, str]:
    dropped = {"LEPTON_WORKSPACE", "DAGSTER_HOME", "BENTOML_HOME", "DVC_SITE_CACHE_DIR"}
    return {**{k: v for k, v in os.environ.items() if k not in dropped}, **more}


def python_of(page: Path) -> Iterator[str]:
    return (content for kind, content in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "python")


def test_the_example_of_performance_runs(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("sentiment: {}\n")
    [code] = python_of(DOCS / "monitoring.md")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["0", "None", "None"]), done.stderr


class Checkout:
    """A copy of the package to which the tutorial's files were added, and a workspace of it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.workspace, self.cache = folder, folder / "workspace", cache
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "lepton_platform", folder / "lepton_platform", ignore=unwanted)
        shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
        text = TUTORIAL.read_text(encoding="utf-8")
        self.files = dict(NAMED.findall(text))
        for name, content in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        self.params = next(c for kind, c in FENCE.findall(text) if kind == "yaml" and c.startswith("mails:"))

    def lepton(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, "-c", "from lepton_platform.cli import main; main()", *words]
        cwd = self.workspace if self.workspace.is_dir() else self.folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = environment(PYTHONPATH=str(self.folder), LEPTON_CACHE_DIR=str(self.cache), PATH=path)
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("tutorial"), cache_dir)
    made.lepton("init", "workspace", "--profile", "smoke")
    with (made.workspace / "params.yaml").open("a") as params:
        params.write(made.params)
    made.lepton("init", ".")
    return made


def test_the_tutorial_has_every_file_of_a_task(checkout: Checkout):
    from lepton_platform.tasks import PARTS

    names = {f"lepton_platform/tasks/mails/{part}.py" for part in (*PARTS, "__init__")}
    assert set(checkout.files) == names | {"lepton_platform/defs/mails/defs.yaml"}


def test_the_tutorials_data_come_and_are_cleaned(checkout: Checkout):
    for stage in ("raw", "clean"):
        checkout.lepton("stage", stage, "mails")
    sql = "SELECT label, count(*) AS mails FROM rows GROUP BY 1 ORDER BY 1"
    counted = {
        row["label"]: row["mails"] for row in json.loads(checkout.lepton("data", "query", "mails", sql, "--json"))
    }
    assert set(counted) == {"ham", "spam"} and min(counted.values()) > 50


@pytest.mark.slow
def test_the_tutorials_task_runs_to_a_deployment(checkout: Checkout):
    checkout.lepton("run", "mails")
    found = json.loads(checkout.lepton("status", "mails", "--json"))["tasks"]["mails"]
    assert {stage["state"] for stage in found["stages"].values()} == {"fresh"}
    assert found["deployed"].startswith("mails:")
    assert_shown(found["stages"])


def assert_shown(stages: dict[str, dict]) -> None:
    """The table of a run that the tutorial shows is of this graph; what depends on the machine may differ."""
    shown = [[cell.strip() for cell in line.split("│")[1:-1]] for line in TUTORIAL.read_text("utf-8").splitlines()]
    table = {cells[0]: (cells[3], cells[4]) for cells in shown if len(cells) == 6}
    assert list(table) == list(stages)
    for name, (rows, figure) in table.items():
        assert rows == ("" if stages[name]["rows"] is None else f"{stages[name]['rows']:,}"), name
        metric, value = figure.rsplit(" ", 1)
        assert metric == next(iter(stages[name]["metrics"])), name
        if not metric.endswith("_per_s"):
            assert stages[name]["metrics"][metric] == pytest.approx(float(value), rel=0.01, abs=0.05), name


# --- infra


def test_the_teams_instance_differs_from_the_local_one_in_its_storage_only():
    from lepton_platform.pipeline.workspace import DAGSTER_YAML

    ours, local = (yaml.safe_load(p.read_text()) for p in (ROOT / "infra/dagster-postgres.yaml", DAGSTER_YAML))
    assert ours.pop("storage") == {"postgres": {"postgres_url": {"env": "DAGSTER_PG_URL"}}}
    assert ours == local
