"""Prometheus itself reads what the gateway tells it; promtool accepts the rules. Debian's package."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.gateway.conftest import TASKS, Serving

INFRA = Path(__file__).resolve().parents[2] / "infra"


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if shutil.which("promtool") is None and "CI" not in os.environ:
        pytest.skip("needs Prometheus: apt-get install prometheus")


def test_promtool_accepts_the_configuration_and_its_rules() -> None:
    done = subprocess.run(["promtool", "check", "config", INFRA / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_exposition(gateway: Serving) -> None:
    told = gateway.client.get(f"{gateway.url}/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True)
    assert b"error" not in done.stderr.lower() and done.returncode in (0, 3), done.stderr  # 3: advice on names


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def prometheus(gateway: Serving, tmp_path: Path) -> Iterator[str]:
    """A server with the platform's own configuration; only the address and the pace are the test's."""
    config = yaml.safe_load((INFRA / "prometheus.yml").read_text("utf-8"))
    config["global"]["scrape_interval"] = "1s"
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [gateway.url.removeprefix("http://")]
    config["rule_files"] = [str(INFRA / "alerts.yml")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    url = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--web.listen-address={url}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--storage.tsdb.path={tmp_path / 'data'}"], stdout=log, stderr=log)
    yield f"http://{url}"
    process.terminate()
    process.wait(20)


def asked(url: str, query: str) -> list[dict]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query})
    return answer.json()["data"]["result"] if answer.status_code == 200 else []


def test_it_scrapes_the_gateway_and_every_worker(gateway: Serving, prometheus: str) -> None:
    gateway.predict("good").raise_for_status()
    until, found = time.monotonic() + 60, []
    while time.monotonic() < until and len(found) < len(TASKS):
        time.sleep(0.5)
        try:
            found = asked(prometheus, 'lepton_gateway_worker_up{role="champion"} == 1')
        except httpx.HTTPError:
            continue
    assert {one["metric"]["task"] for one in found} == set(TASKS)
    [up] = asked(prometheus, "up")
    assert up["value"][1] == "1"
    assert {one["metric"]["task"] for one in asked(prometheus, "lepton_service_info")} == set(TASKS)
    answered = asked(prometheus, 'lepton_requests_total{task="sentiment", route="/predict", status="200"}')
    assert answered and float(answered[0]["value"][1]) >= 1
    rules = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"][0]["rules"]
    assert len(rules) == 4 and all(rule["health"] in ("ok", "unknown") for rule in rules)
