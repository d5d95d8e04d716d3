"""Prometheus itself reads what the gateway tells it; promtool accepts the rules. Debian's package."""

import contextlib
import math
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.gateway.overseen import Seen, ask
from tests.gateway.test_infra import BOARDS, board

INFRA = Path(__file__).resolve().parents[2] / "infra"


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if shutil.which("promtool") is None and "CI" not in os.environ:
        pytest.skip("needs Prometheus: apt-get install prometheus")


def test_promtool_accepts_the_configuration_and_its_rules() -> None:
    done = subprocess.run(["promtool", "check", "config", INFRA / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_exposition(seen: Seen) -> None:
    told = seen.get("/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True)
    assert b"error" not in done.stderr.lower() and done.returncode in (0, 3), done.stderr  # 3: advice on names


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def prometheus(seen: Seen, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the platform's own configuration; only address, key and pace are the test's."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((INFRA / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    [scraped] = config["scrape_configs"]
    scraped["static_configs"][0]["targets"] = [seen.serving.url.removeprefix("http://")]
    scraped["authorization"] = {"credentials": seen.secret}
    config["rule_files"] = [str(INFRA / "alerts.yml")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    url = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address={url}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--storage.tsdb.path={folder / 'data'}"], stdout=log, stderr=log)
    yield f"http://{url}"
    process.terminate()
    process.wait(20)


def asked(url: str, query: str) -> list[dict]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query})
    return answer.json()["data"]["result"] if answer.status_code == 200 else []


def until(url: str, query: str, within_s: float = 60.0) -> list[dict]:
    """What is answered as soon as anything is."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if found := asked(url, query):
                return found
        time.sleep(0.3)
    raise AssertionError(f"Prometheus knows nothing of {query}")


def value(found: list[dict]) -> float:
    [one] = found
    return float(one["value"][1])


def test_it_scrapes_every_process_and_says_what_the_overview_says(seen: Seen, prometheus: str) -> None:
    workers = until(prometheus, "lepton_gateway_worker_up == 1")
    roles = {("digits", "champion"), ("sentiment", "champion"), ("sentiment", "canary")}
    assert {(one["metric"]["task"], one["metric"]["role"]) for one in workers} == roles
    assert value(asked(prometheus, "up")) == 1
    for process in ("lepton", "lepton_gateway", "lepton_supervisor"):
        found = asked(prometheus, f"{process}_process_resident_memory_bytes")
        assert len(found) == (3 if process == "lepton" else 1) and all(float(one["value"][1]) > 1e6 for one in found)
        assert asked(prometheus, f"{process}_process_cpu_seconds_total"), process
    models = {one["metric"]["model"] for one in asked(prometheus, "lepton_service_info")}
    [sentiment] = [task for task in seen.get("/v1/overview").json()["tasks"] if task["name"] == "sentiment"]
    assert {version["model"] for version in sentiment["versions"]} < models
    of = 'task="sentiment", route="/v1/{task}/predict"'
    assert value(asked(prometheus, f"sum(lepton_gateway_requests_total{{{of}}})")) == sentiment["requests"]["total"]
    for percent in (50, 95, 99):  # all that was asked is within the overview's window, so both count the same
        buckets = f"sum by (le) (lepton_gateway_request_seconds_bucket{{{of}}})"
        found = value(asked(prometheus, f"histogram_quantile({percent / 100}, {buckets})"))
        assert found == pytest.approx(sentiment["requests"][f"p{percent}_s"])
    for stage in sentiment["stages"]:
        buckets = f'sum by (le) (lepton_stage_seconds_bucket{{task="sentiment", stage="{stage["name"]}"}})'
        assert value(asked(prometheus, f"histogram_quantile(0.95, {buckets})")) == pytest.approx(stage["p95_s"])


def test_its_rules_are_evaluated_and_what_is_wrong_burns(seen: Seen, prometheus: str) -> None:
    burning = until(prometheus, 'ALERTS{alertstate="firing"}')
    assert {one["metric"]["alertname"] for one in burning} == {"LeptonDrift"}
    assert burning[0]["metric"]["task"] == "sentiment"
    groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    states = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert len(states) == 11 and set(states.values()) == {"ok"}


# --- what Grafana would ask

WINDOW = {"$__rate_interval": "20s", "$task": ".+"}  # as it fills in, after so short a time, for all tasks
NOT_HERE = "lepton_gpu_"  # needs a card; tests/gateway/test_infra.py sees that its names and labels are told


def lines(url: str, panel: dict) -> dict[str, float]:
    """What a panel draws now: legend → value. Two series of one legend could not be told apart."""
    found: dict[str, float] = {}
    for target in panel["targets"]:
        expression = target["expr"]
        for word, filled in WINDOW.items():
            expression = expression.replace(word, filled)
        for series in asked(url, expression):
            labels = series["metric"]
            legend = re.sub(r"{{(\w+)}}", lambda name, labels=labels: labels[name[1]], target["legendFormat"])
            assert legend not in found, f"{panel['title']}: two lines are called {legend}"
            found[legend] = float(series["value"][1])
    return found


def test_every_panel_draws_something_where_there_is_something_to_draw(seen: Seen, prometheus: str) -> None:
    waiting = {
        (path.stem, panel["title"]): panel
        for path in BOARDS
        for panel in board(path)["panels"]
        if panel["type"] != "row" and not all(NOT_HERE in target["expr"] for target in panel["targets"])
    }
    drawn: dict[tuple[str, str], dict[str, float]] = {}
    end = time.monotonic() + 90
    while waiting and time.monotonic() < end:
        ask(seen)
        time.sleep(1.5)
        for place, panel in list(waiting.items()):
            drawn[place] = lines(prometheus, panel)
            if drawn[place] and all(map(math.isfinite, drawn[place].values())):
                del waiting[place]
    assert not waiting, {place: drawn[place] for place in waiting}
    told = {title: found for (_, title), found in drawn.items()}
    assert told["Share of errors"] == {"digits": 0.0, "sentiment": 0.0}
    assert set(told["The last drift check"].items()) == {("sentiment", 1.0)}
    assert told["Open alerts"] == {"sentiment drift": 1.0}
    assert {legend.split(" ")[1] for legend in told["By stage, 95 % within"]} == {"preprocess", "queue", "model", "log"}
    assert told["Share of the canary"] == {"digits": 0.0, "sentiment": 50.0}


def test_a_dashboards_variable_offers_the_tasks(prometheus: str) -> None:
    for path in BOARDS:
        for variable in board(path)["templating"]["list"]:
            [(series, label)] = re.findall(r"^label_values\((.*), (\w+)\)$", variable["query"]["query"])
            until(prometheus, series)
            answer = httpx.get(f"{prometheus}/api/v1/label/{label}/values", params={"match[]": series})
            assert answer.json()["data"] == ["digits", "sentiment"], path.name
