"""The overview: the figures that /metrics has, what the loop has written down, for keyboard, screen reader and phone."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from lepton_platform.gateway.overview import PREDICT, STAGES
from lepton_platform.gateway.samples import Samples, quantiles
from lepton_platform.monitoring.performance import wilson
from tests.gateway.overseen import ASKED, QUALITY, RIGHT, SIGNALS, WHY, Seen
from tests.gateway.page_user import NAMED, UNREADABLE, focused, launched, walk
from tests.loop.traffic import TRAFFIC

LOOKS_MS = 20_000  # longer than the page waits between two looks


def task_of(overview: dict[str, Any], name: str) -> dict[str, Any]:
    return next(task for task in overview["tasks"] if task["name"] == name)


def test_it_is_for_those_who_may_see_the_metrics(seen: Seen) -> None:
    for path in ("/v1/overview", "/metrics"):
        assert seen.get(path, {}).status_code == 401
        assert seen.get(path, seen.user).status_code == 403
        assert seen.get(path).status_code == 200
    assert "/v1/overview" in seen.get("/openapi.json", seen.user).json()["paths"]


def test_it_says_what_the_metrics_say(seen: Seen) -> None:
    told, now = seen.get("/v1/overview").json(), Samples.of([({}, seen.get("/metrics").text)])
    assert [task["name"] for task in told["tasks"]] == ["digits", "sentiment"]
    found = task_of(told, "sentiment")
    requests = found["requests"]
    assert requests["total"] == requests["count"] == ASKED + 1
    assert requests["total"] == now.sum("lepton_gateway_requests_total", task="sentiment", route=PREDICT)
    assert requests["errors"] == 0 and requests["per_second"] == pytest.approx(
        requests["count"] / told["window_s"], rel=0.1
    )
    quantile = quantiles(now.buckets("lepton_gateway_request_seconds", task="sentiment", route=PREDICT))
    assert {name: requests[name] for name in quantile} == quantile and quantile["p50_s"]
    for stage, name in zip(found["stages"], STAGES, strict=True):
        assert stage == {"name": name, **quantiles(now.buckets("lepton_stage_seconds", task="sentiment", stage=name))}
    champion, canary = found["versions"]
    assert [champion["role"], canary["role"]] == ["champion", "canary"]
    assert champion["percent"] == canary["percent"] == 50 and champion["up"] and canary["up"]
    for version in (champion, canary):
        of = {"task": "sentiment", "role": version["role"], "model": version["model"]}
        assert version["memory_bytes"] == pytest.approx(now.one("lepton_process_resident_memory_bytes", **of), rel=0.2)
        answered = now.sum("lepton_requests_total", **of, route="/predict")
        assert version["per_second"] * told["window_s"] == pytest.approx(answered, rel=0.1, abs=1)


def test_it_says_what_the_loop_has_written_down(seen: Seen) -> None:
    told = seen.get("/v1/overview").json()
    found, other = task_of(told, "sentiment"), task_of(told, "digits")
    assert found["drift"]["state"] == "failed" and found["drift"]["why"] == WHY and found["drift"]["rows"] == 4_000
    assert [(s["name"], s["distance"], s["threshold"], s["drifted"]) for s in found["drift"]["signals"]] == [
        (s.name, s.distance, s.threshold, s.drifted) for s in SIGNALS
    ]
    assert found["retrain"]["state"] == "requested" and found["retrain"]["reason"] == WHY
    assert [(alert["task"], alert["kind"], alert["why"]) for alert in told["alerts"]] == [("sentiment", "drift", WHY)]
    assert found["served_quality"] == QUALITY.as_dict() and other["served_quality"] is None
    agreed = found["label_agreement"]
    assert sum(one["labelled"] for one in agreed) == ASKED and sum(one["agreed"] for one in agreed) == RIGHT
    for one in agreed:
        assert (one["low"], one["high"]) == wilson(one["agreed"], one["labelled"])
    assert {"alert: drift", "retrain asked for"} <= {event["what"] for event in found["events"]}
    assert other["drift"] is None and other["retrain"] is None and other["label_agreement"] == []
    exposed = seen.get("/metrics").text
    for line in (
        'lepton_drift_verdict{state="failed",task="sentiment"} 1.0',
        'lepton_drift_distance{signal="length",task="sentiment"} 0.42',
        'lepton_drift_threshold{signal="length",task="sentiment"} 0.1',
        'lepton_alert_open{kind="drift",task="sentiment"} 1.0',
        'lepton_alert_open{kind="rollout",task="sentiment"} 0.0',
        'lepton_retrain_open{task="sentiment"} 1.0',
        'lepton_served_quality_verdict{task="sentiment",state="passed"} 1.0',
        'lepton_served_quality_checked_timestamp_seconds{task="sentiment"} 1.7955972e+09',
        'lepton_retrain_open{task="digits"} 0.0',
    ):
        assert line in exposed or _turned(line) in exposed, line
    assert (
        'lepton_drift_verdict{state="failed",task="digits"}' not in exposed and "lepton_gpu_busy_ratio{" not in exposed
    )


def _turned(line: str) -> str:
    """The same line with its labels in the other order."""
    name, labels, value = re.split(r"[{}]", line)
    return f"{name}{{{','.join(reversed(labels.split(',')))}}}{value}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture
def page(browser: Browser, seen: Seen) -> Iterator[Page]:
    """The overview after its key was given; what breaks in it, or its policy forbids, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, complaints = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    page.goto(f"{seen.serving.url}/overview")
    page.get_by_label("API key").fill(seen.secret)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=re.compile("Sentiment")).wait_for()
    yield page
    context.close()
    assert not complaints


def figure(page: Page, task: str, name: str) -> str:
    return page.get_by_role("region", name=re.compile(task)).first.locator(f"[data-figure={name}]").inner_text()


def milliseconds(text: str) -> float:
    return float(text.removesuffix(" ms").replace(",", "")) / 1e3


def test_the_page_shows_what_the_metrics_say(page: Page, seen: Seen) -> None:
    now = Samples.of([({}, seen.get("/metrics").text)])
    total = now.sum("lepton_gateway_requests_total", task="sentiment", route=PREDICT)
    assert figure(page, "Sentiment", "total") == f"{total:g}" and figure(page, "Sentiment", "errors") == "0"
    for name, value in quantiles(
        now.buckets("lepton_gateway_request_seconds", task="sentiment", route=PREDICT)
    ).items():
        assert value is not None and milliseconds(figure(page, "Sentiment", name)) == pytest.approx(value, rel=0.01)
    stages = page.get_by_role("table").filter(has_text="preprocess").last
    for stage in STAGES:
        found = quantiles(now.buckets("lepton_stage_seconds", task="sentiment", stage=stage)).values()
        cells = stages.get_by_role("row", name=re.compile(f"^{stage}")).get_by_role("cell").all_inner_texts()
        assert list(map(milliseconds, cells)) == pytest.approx(list(found), rel=0.01)


def test_the_page_shows_the_loop(page: Page) -> None:
    sentiment = page.get_by_role("region", name=re.compile("Sentiment")).first
    expect(page.get_by_role("status", name="Alerts")).to_contain_text("1 open alert")
    expect(page.get_by_role("status", name="Alerts")).to_contain_text(f"sentiment: drift. {WHY}")
    expect(sentiment.get_by_role("heading", level=2)).to_contain_text("needs a look")
    for signal in SIGNALS:
        row = sentiment.get_by_role("row", name=re.compile(f"^{signal.name} "))
        expect(row).to_contain_text(re.compile(f"{signal.distance:.3f}.*{signal.threshold:.3f}"))
        expect(row).to_contain_text("drifted" if signal.drifted else "fine")
    expect(sentiment).to_contain_text("requested: " + WHY)
    expect(sentiment).to_contain_text("agreement with what people said of")
    expect(sentiment).to_contain_text(f"Passed: {QUALITY.why} Of {QUALITY.model}, as of 2026-11-25 09:00:00 UTC.")
    folder = os.environ.get("LEPTON_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / "overview.png"), full_page=True)


def test_it_is_looked_at_again_until_it_is_paused(page: Page, seen: Seen) -> None:
    before = int(figure(page, "Digits", "total"))
    picture = {"images": ("digit.png", TRAFFIC["digits"].example)}
    post = f"{seen.serving.url}/v1/digits/predict"
    seen.serving.client.post(post, files=picture, headers=seen.user).raise_for_status()
    digits = page.get_by_role("region", name=re.compile("Digits")).first
    expect(digits.locator("[data-figure=total]")).to_have_text(str(before + 1), timeout=LOOKS_MS)
    pause = page.get_by_role("button", name="Pause")
    walk(page, pause)
    page.keyboard.press("Space")
    expect(pause).to_have_attribute("aria-pressed", "true")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6_000)  # milliseconds: more than it waits between two looks
    assert not asked and focused(pause)


def test_events_are_opened_by_keyboard_and_stay_open(page: Page) -> None:
    sentiment = page.get_by_role("region", name=re.compile("Sentiment")).first
    walk(page, sentiment.locator("summary"))
    page.keyboard.press("Enter")
    events = sentiment.get_by_role("listitem").filter(has_text="retrain asked for")
    expect(events).to_be_visible()
    with page.expect_response("**/v1/overview"):
        pass
    expect(events).to_be_visible()
    assert focused(sentiment.locator("summary"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_everybody(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert page.evaluate(UNREADABLE) == []
    for width in (320, 2_560):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    named = [(n["role"]["value"], n.get("name", {}).get("value", "").strip()) for n in nodes if not n["ignored"]]
    assert [role for role, name in named if role in NAMED - {"table"} and not name] == []
    assert {"banner", "main", "contentinfo", "navigation"} <= {role for role, _ in named}


def test_a_key_that_may_not_see_it_is_told_so(page: Page, seen: Seen) -> None:
    page.get_by_role("button", name="Forget the key").click()
    page.get_by_label("API key").fill(seen.user["X-API-Key"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("scope")
    expect(page.get_by_label("API key")).to_be_focused()


def test_no_gateway_is_told_and_looked_for_again(page: Page) -> None:
    page.route("**/v1/overview", lambda route: route.abort())
    expect(page.get_by_role("alert").first).to_contain_text("The gateway cannot be reached.", timeout=LOOKS_MS)
    page.unroute("**/v1/overview")
    expect(page.get_by_role("alert").first).not_to_contain_text("reached", timeout=LOOKS_MS)
