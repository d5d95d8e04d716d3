"""The try-it page for everybody: refusals in words, keys, names for screen readers, contrast, narrow and wide screens."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from lepton_platform.gateway.page import HEADERS
from tests.gateway.page_user import (
    NAMED,
    TASKS,
    UNREADABLE,
    answered,
    ask_by_mouse,
    choose,
    given,
    headers,
    launched,
    opened,
    panel_of,
    refused,
)

KEY = "lep_right"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture
def page(browser: Browser, gateway: Any) -> Iterator[Page]:
    with opened(browser, gateway) as found:
        yield found


REFUSALS: dict[str, tuple[Callable[[Route], None], str]] = {
    "malformed": (
        refused(422, "It says nothing.", "texts[0]"),
        "cannot use this. It says nothing. It is about texts[0].",
    ),
    "too large": (refused(413, "The body is too large.", "body"), "That is too much. The body is too large."),
    "too often": (
        refused(429, "Sixty a minute.", None, **{"Retry-After": "7"}),
        "Sixty a minute. Try again in 7 seconds.",
    ),
    "overloaded": (
        refused(503, "Many wait.", None, **{"Retry-After": "1"}),
        "cannot answer just now. Many wait. Try again in 1 second.",
    ),
    "not allowed": (refused(403, "Its scope is feedback."), "This key may not do that. Its scope is feedback."),
    "another server's error": (
        lambda route: route.fulfill(status=502, body="<h1>Bad</h1>"),
        "No service behind the gateway answers.",
    ),
    "another server's page": (lambda route: route.fulfill(status=200, body="<h1>Hi</h1>"), "The answer is not JSON"),
    "unreachable": (lambda route: route.abort(), "The gateway cannot be reached."),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_what_is_refused_is_told_in_words(page: Page, why: str):
    answer, words = REFUSALS[why]
    page.route("**/v1/sentiment/predict", answer)
    panel = choose(page, "sentiment")
    panel.get_by_role("textbox", name="Text").fill("A film.")
    panel.get_by_role("button", name="Predict").click()
    expect(panel.get_by_role("alert")).to_contain_text(words)
    page.unroute("**/v1/sentiment/predict")
    answered(page, "sentiment", panel.get_by_role("button", name="Predict").click)  # nothing was lost
    expect(panel.get_by_role("alert")).to_be_empty()


def test_a_key_is_asked_for_kept_in_the_tab_and_forgotten(page: Page, gateway: Any):
    def guarded(route: Route) -> None:
        if route.request.headers.get("authorization") == f"Bearer {KEY}":
            route.continue_(headers={**route.request.headers, **headers(gateway)})
        else:
            refused(401, "A key is needed.", **{"WWW-Authenticate": "Bearer"})(route)

    page.evaluate("sessionStorage.clear()")
    page.route("**/v1**", guarded)
    page.route("**/v1/**", guarded)
    page.reload()
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    for wrong, words in (("lep_wrong", "The key was refused. A key is needed."), ("lep geheim", "without spaces")):
        field.fill(wrong)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").first).to_contain_text(words)
    field.fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", selected=True)).to_be_focused()
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    page.reload()
    panel = choose(page, "sentiment")
    panel.get_by_role("textbox", name="Text").fill("What was typed before.")
    page.evaluate("sessionStorage.setItem('lepton-key', 'lep_revoked')")
    panel.get_by_role("button", name="Predict").click()
    expect(field).to_be_focused()
    field.fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", selected=True)).to_be_focused()
    expect(panel.get_by_role("textbox", name="Text")).to_have_value("What was typed before.")
    ask_by_mouse(page, "sentiment", "A film.")
    page.get_by_role("button", name="Forget the key").click()
    expect(field).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_every_control_has_a_name_and_the_page_has_its_landmarks(page: Page, gateway: Any):
    session = page.context.new_cdp_session(page)
    for task in TASKS:
        ask_by_mouse(page, task, given(gateway, task))
        card = panel_of(page, task).get_by_role("article")
        for name in ("Lineage", "This is wrong"):
            if card.get_by_role("button", name=name).count():
                card.get_by_role("button", name=name).click()
        card.get_by_role("list", name="Lineage, the answer first").wait_for()
        nodes = [n for n in session.send("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
        named = [(n["role"]["value"], n.get("name", {}).get("value", "").strip()) for n in nodes]
        assert [role for role, name in named if role in NAMED and not name] == []
        assert {"banner", "main", "contentinfo", "navigation"} <= {role for role, _ in named}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark_on_320_pixels_and_on_many(page: Page, gateway: Any, scheme: Any):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for task in TASKS:
        ask_by_mouse(page, task, given(gateway, task))
        panel_of(page, task).get_by_role("button", name="Lineage").click()
        panel_of(page, task).get_by_role("list", name="Lineage, the answer first").wait_for()
        assert page.evaluate(UNREADABLE) == []
        for width in (320, 2_560):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (task, width)
    page.route("**/v1/digits/predict", refused(413, "Too large."))
    digits = choose(page, "digits")
    digits.get_by_role("button", name="Predict").click()
    expect(digits.get_by_role("alert")).to_contain_text("Too large.")
    assert page.evaluate(UNREADABLE) == []


def test_no_task_and_no_gateway_are_told_too(page: Page, gateway: Any):
    page.route("**/v1", lambda route: route.fulfill(json={"tasks": [], "authentication": False}))
    page.reload()
    expect(page.get_by_role("main")).to_contain_text("No model serves yet")
    page.unroute("**/v1")
    page.route("**/v1", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert").first).to_contain_text("The gateway cannot be reached.")
    page.unroute("**/v1")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("tab").first).to_be_visible()
    assert httpx.get(f"{gateway.url}/").headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
