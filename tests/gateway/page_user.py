"""A person at the try-it page: a real browser, asked by mouse or by keyboard alone.

``gateway`` is what the tests' fixture gives: its ``url``, a ``key`` where one is asked for, and the ``workspace`` that
its models were made in, where there is one.
"""

import base64
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect, sync_playwright

from lepton_platform.pipeline.stages import STAGES
from tests.loop.traffic import TRAFFIC

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]  # beeps, and nobody is asked
ROWS = {"sentiment": 0, "digits": 0, "trees": 2, "prompts": 0}  # of those that a model has not seen, one to look at
TASKS = tuple(ROWS)
NOON = "2026-03-01T12:00:00.000Z"
NAMES = {"digits": "digit.png", "trees": "plot.png", "prompts": "prompt.flac"}  # of files that are dropped

# What must have a name, of the roles that a screen reader tells
NAMED = {"button", "link", "textbox", "tab", "tabpanel", "slider", "listbox", "option", "radio", "image"}
NAMED |= {"article", "region", "table", "navigation", "tablist"}
# Finds text whose contrast with what is behind it is below 4.5 : 1
UNREADABLE = """() => {
    const parts = (colour) => { const found = colour.match(/[\\d.]+/g).map(Number); return [...found.slice(0, 3), found[3] ?? 1]; };
    const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
    const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const back = (node) => (node ? over(parts(getComputedStyle(node).backgroundColor), back(node.parentElement)) : [255, 255, 255]);
    const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
        const ground = back(node), ink = over(parts(getComputedStyle(node).color), ground);
        const [dark, bright] = [light(ink), light(ground)].sort((a, b) => a - b);
        const contrast = (bright + 0.05) / (dark + 0.05);
        if (contrast < 4.5) found.push([contrast, walker.currentNode.data.trim().slice(0, 40)]);
    }
    return found;
}"""


@contextmanager
def launched() -> Iterator[Browser]:
    """Debian's browser; a test is skipped where there is none."""
    if not CHROMIUM.is_file() and "CI" not in os.environ:
        pytest.skip("needs a browser: apt-get install chromium")
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS, *MICROPHONE])
        yield browser
        browser.close()


def headers(gateway: Any) -> dict[str, str]:
    key = getattr(gateway, "key", None)
    return {"Authorization": f"Bearer {key}"} if key else {}


@contextmanager
def opened(browser: Browser, gateway: Any) -> Iterator[Page]:
    """The page, with its key where one is needed; what breaks in it, or its policy forbids, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, complaints = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("filechooser", lambda _: None)  # the browser asks us from the start, and shows no window of its own
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
    page.route("**/lineage/*", Past(page).told)
    page.goto(f"{gateway.url}/")
    if headers(gateway):
        page.get_by_label("API key").fill(gateway.key)
        page.keyboard.press("Enter")
    page.get_by_role("tab").first.wait_for()
    yield page
    context.close()
    assert not complaints


def refused(status: int, message: str, field: str | None = None, **headers: str) -> Callable[[Route], None]:
    """The gateway's refusal, for ``Page.route``."""
    body = {"error": {"status": status, "message": message, "field": field}}
    return lambda route: route.fulfill(status=status, json=body, headers=headers)


class Past:
    """Lineage where the tests' models were never built by the graph: as such, with what people said on this page."""

    def __init__(self, page: Page) -> None:
        self.said: dict[str, list[dict[str, Any]]] = {}
        page.on("request", self._heard)

    def _heard(self, request: Request) -> None:
        if request.url.endswith("/feedback"):
            for item in (request.post_data_json or {})["feedback"]:
                truth = {name: value for name, value in item.items() if name != "id"}
                self.said.setdefault(item["id"], []).append({"at": NOON, **truth})

    def told(self, route: Route) -> None:
        """The gateway's own answer where it has one."""
        answer = route.fetch()
        if answer.ok:
            route.fulfill(response=answer)
            return
        *_, task, _, identifier = route.request.url.split("/")
        made = {
            "run_id": "f1fbf4ba-7dad",
            "git_commit": "f90b9d00372c",
            "started_at": NOON,
            "seconds": 3.5,
            "rows": 12_748,
        }
        tag = route.request.frame.page.locator("article .code").first.text_content()
        stages = {
            stage.name: {"version": f"{stage.name}.dir", "made_by": made} for stage in STAGES if stage.name != "bento"
        }
        stages["quality"]["made_by"] = {"note": "made elsewhere: this ledger has no record of the run"}
        past = {
            "task": task,
            "prediction": {"id": identifier, "at": NOON, "latency_ms": 1.75, "feedback": self.said.get(identifier, [])},
            "deployment": {
                "id": 1,
                "state": "champion",
                "reason": "It is the first.",
                "created_at": NOON,
                "ended_at": None,
            },
            "bento": {"tag": tag, "manifest": {"labels": [], "metrics": {"verdict": "Beats the yardstick."}}},
            "stages": stages,
            "training_rows": {"count": 8_946, "ids": ["r0001", "r0002"]},
        }
        route.fulfill(json=past)


def given(gateway: Any, task: str) -> Any:
    """What is asked: a row that the model has not seen where there is a workspace, else the service's own example."""
    workspace, traffic = getattr(gateway, "workspace", None), replace(TRAFFIC[task], crop=None)
    return traffic.held_out(Path(workspace))[ROWS[task]] if workspace else traffic.example


def panel_of(page: Page, task: str) -> Locator:
    return page.get_by_role("tabpanel", name=task.title())


def choose(page: Page, task: str) -> Locator:
    page.get_by_role("tab", name=task.title()).click()
    return panel_of(page, task)


def answered(page: Page, task: str, ask: Callable[[], None]) -> dict[str, Any]:
    with page.expect_response(f"**/v1/{task}/predict") as response:
        ask()
    assert response.value.status == 200, response.value.text()
    return response.value.json()


# --- by mouse


def ask_by_mouse(page: Page, task: str, content: Any) -> dict[str, Any]:
    panel = choose(page, task)
    if isinstance(content, str):
        panel.get_by_role("textbox", name="Text").fill(content)
    else:
        drop(page, panel.locator(".drop"), content, NAMES[task])
        expect(panel.get_by_role("list", name="Chosen")).to_contain_text(NAMES[task])
    return answered(page, task, panel.get_by_role("button", name="Predict").click)


def drop(page: Page, zone: Locator, content: bytes, name: str) -> None:
    make = """([name, content]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
        return transfer;
    }"""
    transfer = page.evaluate_handle(make, [name, base64.b64encode(content).decode()])
    for event in ("dragenter", "dragover", "drop"):
        zone.dispatch_event(event, {"dataTransfer": transfer})


def press_by_mouse(page: Page, within: Locator, name: str) -> None:
    del page
    within.get_by_role("button", name=name, exact=True).click()


# --- by keyboard alone


def focused(locator: Locator) -> bool:
    return locator.count() == 1 and locator.evaluate("(node) => node === document.activeElement")


def walk(page: Page, to: Locator) -> None:
    """Press Tab until the focus is there; wherever it is on the way, it can be seen."""
    outlined = """() => {
        const node = document.activeElement;
        return node === document.body || [node, node.parentElement].some((n) => getComputedStyle(n).outlineStyle !== "none");
    }"""
    for _ in range(100):
        if focused(to):
            return
        page.keyboard.press("Tab")
        assert page.evaluate(outlined), page.evaluate("document.activeElement.outerHTML")
    raise AssertionError(f"{to} cannot be reached with Tab")


def ask_by_keyboard(page: Page, task: str, content: Any) -> dict[str, Any]:
    walk(page, page.get_by_role("tab", selected=True))
    page.keyboard.press("Home")
    while not focused(page.get_by_role("tab", name=task.title(), selected=True)):
        page.keyboard.press("ArrowRight")
    panel = panel_of(page, task)
    if isinstance(content, str):
        walk(page, panel.get_by_role("textbox", name="Text"))
        page.keyboard.type(content)
    else:
        walk(page, panel.get_by_label(re.compile("or choose files")))
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files([{"name": NAMES[task], "mimeType": "application/octet-stream", "buffer": content}])
        expect(panel.get_by_role("list", name="Chosen")).to_contain_text(NAMES[task])
    walk(page, panel.get_by_role("button", name="Predict"))
    return answered(page, task, lambda: page.keyboard.press("Enter"))


def press_by_keyboard(page: Page, within: Locator, name: str) -> None:
    walk(page, within.get_by_role("button", name=name, exact=True))
    page.keyboard.press("Space")


Ask = Callable[[Page, str, Any], dict[str, Any]]
Press = Callable[[Page, Locator, str], None]
WAYS: dict[str, tuple[Ask, Press]] = {
    "mouse": (ask_by_mouse, press_by_mouse),
    "keyboard": (ask_by_keyboard, press_by_keyboard),
}
