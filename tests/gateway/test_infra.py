"""Dashboards and rules say what the processes tell: every metric and label in them is there, every rule begins and ends."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lepton_platform.gateway import gpus, loop_metrics
from lepton_platform.gateway.control import wait_ready
from lepton_platform.gateway.metrics import text
from lepton_platform.monitoring.alerts import Kind
from lepton_platform.settings import STORES
from tests.gateway.conftest import new_settings, offer
from tests.gateway.nvml import Nvml
from tests.gateway.overseen import Seen
from tests.workspaces import free_port

INFRA = Path(__file__).resolve().parents[2] / "infra"
BOARDS = sorted((INFRA / "grafana" / "dashboards").glob("*.json"))
RULES = [
    rule for group in yaml.safe_load((INFRA / "alerts.yml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
STRING, MATCHERS = re.compile(r'"(?:[^"\\]|\\.)*"'), re.compile(r"(\w+)\s*\{([^}]*)\}")
GRAFANA = {"$__rate_interval": "5m", "$task": "x"}  # what it puts in place of its own words
COLUMNS = 24  # of a dashboard's grid


def board(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def targets(path: Path) -> Iterator[tuple[str, str]]:
    """A panel's title and an expression of it, as Prometheus is sent it."""
    for panel in board(path)["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for word, value in GRAFANA.items():
                expression = expression.replace(word, value)
            yield panel["title"], expression


EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in RULES] + [found for path in BOARDS for found in targets(path)]


def named(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of an expression, and the labels that it is chosen by. What stands between quotes is no name."""
    bare = STRING.sub('""', expression)
    chosen = {name: set(re.findall(r"(\w+)\s*[=!]", inside)) for name, inside in MATCHERS.findall(bare)}
    for name in re.findall(r"\b(?:lepton_\w+|up)\b", MATCHERS.sub(r"\1", bare)):
        yield name, chosen.get(name, set())


def grouped(expression: str) -> set[str]:
    """The labels that an expression adds up or joins by; ``le`` is a histogram's."""
    bare = STRING.sub('""', expression)
    found = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", bare)
    return {label.strip() for labels in found for label in labels.split(",")} - {"le"}


@pytest.fixture(scope="module")
def exposed(seen: Seen) -> dict[str, set[str]]:
    """Each metric that real processes tell, with its labels; what Prometheus adds itself; a card that is not here."""
    told = seen.get("/metrics").text + text(loop_metrics.machine(INFRA, gpus.read(Nvml())))
    found: dict[str, set[str]] = {"up": {"job", "instance"}}
    for line in told.splitlines():
        if not line.startswith("#"):
            name, _, rest = STRING.sub('""', line).partition(" ")[0].partition("{")
            found.setdefault(name, {"job", "instance"}).update(re.findall(r'(\w+)=""', rest))
    return found


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[title for title, _ in EXPRESSIONS])
def test_what_is_asked_for_is_told(exposed: dict[str, set[str]], title: str, expression: str) -> None:
    found = list(named(expression))
    assert found, expression
    for name, labels in found:
        assert name in exposed, f"{title}: nobody tells {name}"
        assert labels <= exposed[name], f"{title}: {name} has no {labels - exposed[name]}"
    assert grouped(expression) <= set().union(*(exposed[name] for name, _ in found)), title


def test_the_check_sees_what_it_should() -> None:
    expression = 'sum by (task, le) (rate(lepton_a_bucket{job="lepton_no", x=~"{a}"}[5m])) / on (role) up > 1'
    assert list(named(expression)) == [("lepton_a_bucket", {"job", "x"}), ("up", set())]
    assert grouped(expression) == {"task", "role"}


@pytest.mark.parametrize("page", ["monitoring.md", "howto/production.md"])
def test_what_the_documentation_names_is_told(exposed: dict[str, set[str]], page: str) -> None:
    words = (INFRA.parent / "docs" / page).read_text("utf-8")
    found = re.findall(r"`(lepton_\w+[a-z])(?:\{([^}`]*)\})?`", words)
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name): labels for name, labels in exposed.items()} | exposed
    assert found
    for name, labels in found:
        assert name in families and set(re.findall(r"\w+", re.sub(r"=\S+", "", labels))) <= families[name], name


# --- promtool


def promtool(*words: str | Path) -> str:
    if shutil.which("promtool") is None and "CI" not in os.environ:
        pytest.skip("needs Prometheus: apt-get install prometheus")
    done = subprocess.run(["promtool", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_can_read_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    found = [expression for path in BOARDS for _, expression in targets(path)]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(found)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", tmp_path / "panels.yml")


def test_every_rule_begins_and_ends() -> None:
    assert "SUCCESS" in promtool("test", "rules", INFRA / "alerts_test.yml")
    began: set[str] = set()
    ended: set[str] = set()
    for one in yaml.safe_load((INFRA / "alerts_test.yml").read_text("utf-8"))["tests"]:
        seen_at = [(case["alertname"], bool(case.get("exp_alerts"))) for case in one["alert_rule_test"]]
        for (name, before), (other, after) in pairwise(seen_at):
            ended |= {name} if name == other and before and not after else set()
        began |= {name for name, burns in seen_at if burns}
    assert began == ended == {rule["alert"] for rule in RULES}


def test_every_rule_says_what_is_wrong_and_how_bad() -> None:
    for rule in RULES:
        assert rule["annotations"]["summary"].endswith((".", "?")) and rule["labels"]["severity"] in {"page", "ticket"}


RULE_OF = {  # of the platform's own alerts; the others have one together
    "drift": "LeptonDrift",
    "drift_check": "LeptonDriftCheckStale",
    "service": "LeptonWorkerDown",
    "errors": "LeptonServiceFails",
    "disk": "LeptonDiskFull",
}


def test_what_the_platform_tells_by_itself_is_told_by_one_rule() -> None:
    [together] = [rule["expr"] for rule in RULES if rule["alert"] == "LeptonAlertOpen"]
    [left_out] = re.findall(r'kind!~"([\w|]+)"', together)
    assert set(left_out.split("|")) == set(RULE_OF) < set(get_args(Kind))
    assert set(RULE_OF.values()) < {rule["alert"] for rule in RULES}


# --- Grafana


def test_the_dashboards_are_found_by_what_provisions_them() -> None:
    folder = INFRA / "grafana" / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "lepton.yml").read_text("utf-8"))["datasources"]
    [provider] = yaml.safe_load((folder / "dashboards" / "lepton.yml").read_text("utf-8"))["providers"]
    assert source["type"] == "prometheus" and source["url"].startswith("http://127.0.0.1:")
    assert provider["type"] == "file" and provider["options"]["path"].startswith("/")
    for path in BOARDS:
        sources = {json.dumps(found, sort_keys=True) for found in _values(board(path), "datasource")}
        assert sources == {json.dumps({"type": "prometheus", "uid": source["uid"]}, sort_keys=True)}, path.name


def _values(node: Any, key: str) -> Iterator[Any]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from _values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _values(value, key)


def test_the_dashboards_have_names_of_their_own() -> None:
    found = [board(path) for path in BOARDS]
    assert len(found) == len({one["uid"] for one in found}) == len({one["title"] for one in found}) >= 2
    assert all(
        re.fullmatch(r"[\w-]{1,40}", one["uid"]) and one["uid"] == path.stem
        for one, path in zip(found, BOARDS, strict=True)
    )


def leaves(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, f"{place}.{key}")
    else:
        yield place, node


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_grafanas_own_types_know_every_word_of_a_dashboard(path: Path) -> None:
    """What they do not know they leave out."""
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()  # of panels and queries
    known = dict(leaves(json.loads(JSONEncoder().encode(Dashboard.from_json(board(path))))))
    assert {place: value for place, value in leaves(board(path)) if known.get(place, "unknown") != value} == {}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboards_panels_stand_in_its_grid_and_ask_for_something(path: Path) -> None:
    whole = board(path)
    assert isinstance(whole["schemaVersion"], int) and "id" not in whole and whole["title"]
    panels = whole["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS and place["h"] > 0, panel["title"]
        for cell in (
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ):
            assert taken.setdefault(cell, panel["title"]) == panel["title"], f"{panel['title']} lies on {taken[cell]}"
        if panel["type"] == "row":
            continue
        assert panel["type"] in {"timeseries", "stat", "table"} and panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references), panel["title"]
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"]), panel["title"]
    variables = {variable["name"] for variable in whole["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)(\w+)", json.dumps(panels)))
    assert used <= variables


# --- systemd

UNITS = sorted((INFRA / "systemd").glob("*.service"))


def unit(path: Path, folder: Path) -> str:
    """As somebody would write it whose workspace is ``folder``, with this environment's programs."""
    text = path.read_text("utf-8").replace("/srv/lepton/.venv/bin", str(Path(sys.executable).parent))
    return text.replace("/srv/lepton", str(folder))


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None and "CI" not in os.environ:
        pytest.skip("needs systemd")
    for path in UNITS:
        (tmp_path / path.name).write_text(unit(path, tmp_path).replace("User=lepton", f"User={os.getuid()}"), "utf-8")
    found = sorted(tmp_path.glob("*.service"))
    done = subprocess.run(["systemd-analyze", "verify", *found], capture_output=True, text=True)
    assert done.returncode == 0 and len(found) == 3, done.stderr


def test_the_services_run_in_nothing_but_their_units_environment(bentos: dict[str, Path], tmp_path: Path) -> None:
    settings = new_settings(tmp_path, ("digits",), service_port=free_port())
    offer(settings, "digits", bentos["digits"])
    lines = [line.partition("=") for line in unit(INFRA / "systemd" / "lepton-services.service", tmp_path).splitlines()]
    [command] = [value.split() for name, _, value in lines if name == "ExecStart"]
    environment = dict(value.split("=", 1) for name, _, value in lines if name == "Environment")
    process = subprocess.Popen(command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **environment})
    try:
        assert wait_ready(f"http://127.0.0.1:{settings.service_port}", 60, process.pid)
    finally:
        process.terminate()
        assert process.wait(40) == 0


def test_dagster_is_told_all_that_lepton_up_tells_it() -> None:
    for name in ("lepton-daemon", "lepton-ui"):
        told = re.findall(r"^Environment=(\w+)=", (INFRA / "systemd" / f"{name}.service").read_text("utf-8"), re.M)
        assert set(told) == {"LEPTON_WORKSPACE", "PWD", *STORES}, name
