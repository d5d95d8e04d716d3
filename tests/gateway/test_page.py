"""The try-it page: its files and their headers, and what it does in a real browser, by mouse and by keyboard alone."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect
from starlette.applications import Starlette
from starlette.testclient import TestClient

from lepton_platform.gateway.keys import Keys
from lepton_platform.gateway.page import FILES, FOLDER, HEADERS, PAGES, page_routes
from tests.gateway.conftest import new_settings, offer, serve
from tests.gateway.page_user import (
    TASKS,
    WAYS,
    Press,
    answered,
    ask_by_mouse,
    choose,
    given,
    launched,
    opened,
    panel_of,
)
from tests.loop.traffic import TRAFFIC
from tests.serving.pictures import bright, file

SHOTS = {"sentiment": "try-text.png", "trees": "try-image.png", "prompts": "try-audio.png"}
SURE = 0.3  # boxes that are less sure are shown when asked for
MOST_LINES = 400

# --- the files and their headers


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=page_routes()))


@pytest.mark.parametrize("path", [*PAGES, *(f"/page/{name}" for name in FILES)])
def test_a_file_is_sent_as_what_it_is_and_asked_for_again(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 200 and answer.content == (FOLDER / PAGES.get(path, path.split("/")[-1])).read_bytes()
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].startswith(kinds.get(path.rpartition(".")[2], "text/html"))
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    again = client.get(path, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert again.status_code == 304 and not again.content and again.headers["etag"] == answer.headers["etag"]
    assert client.head(path).status_code == 200


def test_the_policy_lets_nothing_in_from_elsewhere(client: TestClient):
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"unsafe|\*|https?:|data:", policy)


@pytest.mark.parametrize(
    "path", ["page.py", "nothing.js", "page.js/", "..%2fpage.py", "%2e%2e/page.py", "/etc/passwd", ""]
)
def test_what_is_not_in_the_table_is_not_there(client: TestClient, path: str):
    answer = client.get(f"/page/{path}")
    assert answer.status_code == 404 and answer.json()["error"]["status"] == 404
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


def test_the_folder_is_the_table_and_its_files_need_no_others():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted([*PAGES.values(), *FILES])
    for name in (*PAGES.values(), *FILES):
        text = (FOLDER / name).read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"""https?://|["'(]//|@import|url\(|innerHTML|insertAdjacentHTML|\beval\b""", text), name
        assert not re.search(r"""\s(style|on[a-z]+)=["']|<script>|<style""", text), name
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= set(FILES), name


# --- in the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture
def page(browser: Browser, gateway: Any) -> Iterator[Page]:
    with opened(browser, gateway) as found:
        yield found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", TASKS)
def test_an_answer_its_lineage_and_its_correction(page: Page, gateway: Any, task: str, way: str):
    ask, press = WAYS[way]
    answer = ask(page, task, given(gateway, task))
    [prediction] = answer["predictions"]
    card = panel_of(page, task).get_by_role("article")
    expect(card).to_contain_text(prediction["id"])
    expect(card).to_contain_text(answer["model"])
    expect(card).to_contain_text(re.compile(r"Answered in\s*\d+ ms"))
    check_said(panel_of(page, task), prediction)
    shoot(page, task, way, before_lineage=True)
    press(page, card, "Lineage")
    chain = card.get_by_role("list", name="Lineage, the answer first")
    expect(chain).to_contain_text("Learned from")
    links = chain.get_by_role("heading").all_text_contents()
    assert links[0] == f"Prediction {prediction['id']}" and links[2] == f"Bento {answer['model']}"
    kinds = [link.split()[0] for link in links]
    assert kinds[1] == "Deployment" and kinds[-1] == "raw" and {"compressed", "model", "dataset"} < set(kinds)
    shoot(page, task, way, before_lineage=False)
    card.locator("summary").press("Enter")
    whole = card.get_by_role("region", name="Lineage as JSON")
    expect(whole).to_contain_text("{")
    assert json.loads(whole.text_content() or "")["prediction"]["id"] == prediction["id"]
    if "boxes" in prediction:
        assert card.get_by_role("button", name="This is wrong").count() == 0
        return
    truth = correct(page, card, press, prediction)
    for _ in range(2):  # closed, and asked for again
        press(page, card, "Lineage")
    expect(chain).to_contain_text(f"“{truth}”")


def check_said(panel: Locator, prediction: dict[str, Any]) -> None:
    card = panel.get_by_role("article")
    if "boxes" in prediction:
        sure = sum(box["score"] >= SURE for box in prediction["boxes"])
        expect(panel.get_by_role("option")).to_have_count(sure)
        if prediction["boxes"]:
            card.get_by_role("slider", name="Surer than").fill("0")
            expect(panel.get_by_role("option")).to_have_count(min(MOST_LINES, len(prediction["boxes"])))
            card.get_by_role("slider").fill(str(SURE))
        return
    said = prediction["text"] or "Nothing was said." if "text" in prediction else prediction["label"]
    expect(panel.locator(".status")).to_contain_text(said)
    expect(card.locator(".verdict")).to_contain_text(said)
    if "label" in prediction:
        row = card.get_by_role("row", name=re.compile(f"^{prediction['label']} "))
        expect(row).to_contain_text("%")
    for word in prediction.get("words", []):
        expect(card.get_by_role("list", name="Words and their seconds")).to_contain_text(word["word"])


def correct(page: Page, card: Locator, press: Press, prediction: dict[str, Any]) -> str:
    """Say that it is wrong, in both ways: without telling what is right, and telling it. Returns what is right."""
    press(page, card, "This is wrong")
    section = card.get_by_role("region", name="Correction")
    if "text" in prediction:
        field = section.get_by_role("textbox", name="What was said")
        expect(field).to_be_focused()
        field.fill("")
        press(page, section, "Send the correction")
        expect(section.get_by_role("status")).to_contain_text("Write what was said first")
        page.keyboard.type("Press one for sales.")
        truth = "Press one for sales."
    else:
        expect(section.get_by_role("radio").first).to_be_focused()
        press(page, section, "Send the correction")
        expect(section.get_by_role("status")).to_contain_text("Choose the right label first")
        page.keyboard.press("Space")
        truth = str(section.get_by_role("radio", checked=True).get_attribute("value"))
        assert truth != prediction["label"]
    press(page, section, "Send the correction")
    expect(section.get_by_role("status")).to_contain_text(f"Noted: “{truth}”")
    return truth


def shoot(page: Page, task: str, way: str, before_lineage: bool) -> None:
    """Pictures for the documentation: the text's answer with its lineage, the others without."""
    folder = os.environ.get("LEPTON_SCREENSHOTS")
    if folder and way == "mouse" and task in SHOTS and before_lineage == (task != "sentiment"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / SHOTS[task]), full_page=True)


# --- what only a browser can tell


def recorded(page: Page, milliseconds: int) -> Locator:
    panel = choose(page, "prompts")
    panel.get_by_role("button", name="Record with the microphone").click()
    stop = panel.get_by_role("button", name="Stop recording")
    stop.wait_for()
    page.wait_for_timeout(milliseconds)
    stop.click()
    return panel


def test_a_recording_from_the_microphone_is_understood(page: Page):
    panel = recorded(page, 2_000)
    expect(panel.get_by_role("list", name="Chosen")).to_contain_text("recording 1")
    [heard] = answered(page, "prompts", panel.get_by_role("button", name="Predict").click)["predictions"]
    assert 1 < heard["duration_s"] < 8


def test_what_is_spoken_is_heard_meanwhile_and_answered_when_it_ends(page: Page):
    said: list[Any] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: said.append(json.loads(frame))))
    panel = recorded(page, 2_500)
    card = panel.get_by_role("article")
    card.wait_for()
    assert said and all("partial" in frame for frame in said[:-1])
    [answer] = said[-1]["predictions"]
    expect(card).to_contain_text(answer["id"])
    assert 1 < answer["duration_s"] < 8


def test_what_is_spoken_is_heard_where_a_key_is_asked_for(
    browser: Browser, bentos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
):
    """The key goes with the stream where a browser can send one: as a subprotocol, never in an address."""
    settings = new_settings(tmp_path_factory.mktemp("keyed"), ("prompts",), auth="on")
    offer(settings, "prompts", bentos["prompts"])
    addresses: list[str] = []
    with serve(settings) as serving:
        keyed = SimpleNamespace(url=serving.url, key=Keys(settings).create("page", ("predict", "feedback"))[1])
        with opened(browser, keyed) as page:
            page.on("request", lambda request: addresses.append(request.url))
            page.on("websocket", lambda socket: addresses.append(socket.url))
            card = recorded(page, 2_500).get_by_role("article")
            card.wait_for()
            expect(card).to_contain_text(re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7"))
    assert any(address.endswith("/stream") for address in addresses)
    assert not any(keyed.key in address for address in addresses)


def test_where_no_stream_is_taken_the_recording_is_there_all_the_same(page: Page):
    page.route_web_socket("**/stream", lambda socket: socket.close(code=1013, reason="Come again later."))
    panel = recorded(page, 1_000)
    expect(panel).to_contain_text("Recorded, but not heard meanwhile: Come again later.")
    [heard] = answered(page, "prompts", panel.get_by_role("button", name="Predict").click)["predictions"]
    assert heard["duration_s"] > 0.5


def test_boxes_are_drawn_in_the_pixels_of_the_picture_as_it_is_displayed(page: Page):
    exif = Image.Exif()
    exif[0x0112] = 6  # it lies on its side, and says so
    lying = Image.fromarray(bright(120, 60)).transpose(Image.Transpose.ROTATE_90)
    found = {
        "id": "01a20d4c-c5bc-7471-b97d-133fa2be7c71",
        "boxes": [{"box": [72, 5, 84, 55], "label": "tree", "score": 0.9}],
    }
    page.route("**/v1/trees/predict", lambda route: route.fulfill(json={"predictions": [found], "model": "trees:0"}))
    ask_by_mouse(page, "trees", file(lying, "JPEG", exif=exif))
    frame = panel_of(page, "trees").locator(".frame")
    expect(panel_of(page, "trees").get_by_role("option")).to_have_count(1)
    drawn = """(frame, [x, y]) => {
        const [picture, canvas] = [frame.querySelector("img"), frame.querySelector("canvas")];
        const scale = canvas.width / picture.naturalWidth;
        const pixel = canvas.getContext("2d").getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1);
        return [picture.naturalWidth, canvas.width > 0 && pixel.data[3] > 0];
    }"""
    for x, y, there in ((72, 30, True), (84, 30, True), (78, 55, True), (78, 30, False), (20, 30, False)):
        assert frame.evaluate(drawn, [x, y]) == [120, there], (x, y)


def test_several_pictures_are_answered_one_by_one_and_one_that_is_none_is_named(page: Page):
    panel = choose(page, "digits")
    example: FilePayload = {"name": "a.png", "mimeType": "image/png", "buffer": TRAFFIC["digits"].example}
    tiff: FilePayload = {"name": "old.tif", "mimeType": "image/tiff", "buffer": file(bright(), "TIFF")}
    panel.locator("input[type=file]").set_input_files([example, tiff])  # no browser shows the second
    expect(panel.get_by_role("list", name="Chosen")).to_contain_text("no preview")
    answered(page, "digits", panel.get_by_role("button", name="Predict").click)
    expect(panel.get_by_role("article")).to_have_count(2)
    none: FilePayload = {"name": "letter.png", "mimeType": "image/png", "buffer": b"I am a picture, said the letter."}
    panel.locator("input[type=file]").set_input_files([example, none])
    panel.get_by_role("button", name="Predict").click()
    expect(panel.get_by_role("alert")).to_contain_text("The service cannot use this. images[1]")
    expect(panel.get_by_role("alert")).to_contain_text("It is about letter.png.")
    expect(panel.get_by_role("article")).to_have_count(0)
