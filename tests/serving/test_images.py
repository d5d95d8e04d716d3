"""Pictures over HTTP, as people and attackers send them: right, or refused by name; never a fault, never without bound."""

import base64
import io
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from lepton_platform.data.images import decode
from lepton_platform.models.image_input import as_input
from lepton_platform.serving.images import MAX_FILE_BYTES
from lepton_platform.serving.log_reader import FEEDBACK, find, hours, read_log, read_rows
from tests.serving import pictures
from tests.serving.conftest import Running, build, start
from tests.serving.models import CELL, write_classifier, write_detector

MUTATIONS = 2_000
GROWTH_BYTES = 300 << 20  # of resident memory: one picture of the largest kind that is taken, while it is decoded
GOOD, BAD = pictures.good(), pictures.bad()
Files = list[bytes]


def ended(running: Running) -> None:
    running.process.terminate()
    running.process.wait(20)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("digits")
    running = start(build(folder, "digits", write_classifier), folder / "log")
    yield running
    ended(running)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("trees")
    running = start(build(folder, "trees", write_detector, max_waiting=512, max_wait_s=30), folder / "log")
    yield running
    ended(running)


def multipart(service: Running, files: Files, query: str = "", field: str = "images") -> httpx.Response:
    sent = [(field, (f"{index}.bin", content, "image/gif")) for index, content in enumerate(files)]  # it is no GIF
    return service.client.post(f"{service.url}/predict{query}", files=sent)


def as_json(service: Running, files: Files, query: str = "") -> httpx.Response:
    values = [base64.b64encode(content).decode() for content in files]
    return service.client.post(f"{service.url}/predict{query}", json={"images": values})


def raw(service: Running, body: bytes, content_type: str) -> httpx.Response:
    return service.client.post(f"{service.url}/predict", content=body, headers={"content-type": content_type})


def answers(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["field"]


# --- right


@pytest.mark.parametrize("send", [multipart, as_json])
def test_every_kind_of_file_is_seen_as_it_is_displayed(digits: Running, send: Any) -> None:
    found = answers(send(digits, list(GOOD.values())))
    assert {name: a["label"] for name, a in zip(GOOD, found, strict=True)} == dict.fromkeys(GOOD, str(pictures.COLUMN))
    for answer in found:
        assert answer["scores"][answer["label"]] == answer["score"] == max(answer["scores"].values())


def test_both_ways_of_sending_give_the_same_answer(digits: Running, trees: Running) -> None:
    for service in (digits, trees):
        one, other = answers(multipart(service, [GOOD["jpeg"]])), answers(as_json(service, [GOOD["jpeg"]]))
        assert [{**a, "id": ""} for a in one] == [{**a, "id": ""} for a in other]


def test_one_pixel_is_a_picture(digits: Running, trees: Running) -> None:
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        pixel = pictures.file(np.zeros((1, 1, 3), np.uint8), kind)
        assert answers(multipart(digits, [pixel])) and answers(multipart(trees, [pixel]))[0]["boxes"] == []


def squares(width: int, height: int, count: int, seed: int = 5) -> tuple[np.ndarray, list[list[float]]]:
    """Bright cells on black, none beside another, and their corners."""
    chance, picture = np.random.default_rng(seed), np.zeros((height, width, 3), np.uint8)
    places = [(x, y) for x in range(0, width // CELL, 2) for y in range(0, height // CELL, 2)]
    found = []
    for x, y in chance.permutation(places)[:count] * CELL:
        picture[y : y + CELL, x : x + CELL] = 255
        found.append([float(x), float(y), float(x + CELL), float(y + CELL)])
    return picture, sorted(found)


@pytest.mark.parametrize(("width", "height"), [(96, 64), (496, 400), (1200, 800), (2000, 48), (1600, 1600)])
def test_boxes_are_in_pixels_of_the_picture_each_once(trees: Running, width: int, height: int) -> None:
    """Tiles, their margins and seams cannot be told from the answer."""
    picture, corners = squares(width, height, 400)
    [answer] = answers(multipart(trees, [pictures.file(picture)]))
    assert sorted(box["box"] for box in answer["boxes"]) == corners
    assert all(box["label"] == "tree" and box["score"] > 0.99 for box in answer["boxes"])
    assert [b["score"] for b in answer["boxes"]] == sorted((b["score"] for b in answer["boxes"]), reverse=True)


def test_boxes_are_where_a_viewer_shows_them(trees: Running) -> None:
    picture, corners = squares(96, 64, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90)
    [answer] = answers(multipart(trees, [pictures.file(lying, "PNG", exif=exif)]))
    assert sorted(box["box"] for box in answer["boxes"]) == corners


def test_pictures_of_different_sizes_in_one_request(trees: Running) -> None:
    sent = [squares(width, 320, 20, seed=width) for width in (64, 320, 1200, 352, 800)]
    found = answers(multipart(trees, [pictures.file(picture) for picture, _ in sent]))
    assert [sorted(box["box"] for box in answer["boxes"]) for answer in found] == [corners for _, corners in sent]


# --- the log


def test_what_was_sent_is_in_the_log_and_found_again(digits: Running, trees: Running) -> None:
    small, large = GOOD["png"], pictures.file(pictures.noise(200, 100))
    assert len(small) < 4096 < len(large)
    for service, task in ((digits, "digits"), (trees, "trees")):
        ids = [a["id"] for a in answers(multipart(service, [small, large, large]))]
        table = read_log(service.log, task, hours(service.log, task)[-1])
        kept = dict(zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True))
        assert [kept[i] for i in ids] == [small, large, large]
        row = find(service.log, task, ids[1])
        assert row is not None and set(row["image"]) == {"$media", "bytes"} and row["image"]["bytes"] == len(large)
        files = [path for path in (service.log / task / "media").rglob("*") if path.is_file()]
        assert [path.name for path in files].count(row["image"]["$media"]) == 1  # sent twice, there once
        assert not [path for path in files if path.name.startswith(".")]


def test_feedback_of_boxes(trees: Running) -> None:
    [answer] = answers(multipart(trees, [GOOD["png"]]))

    def say(boxes: Any, **more: Any) -> httpx.Response:
        item = {"id": answer["id"], "boxes": boxes, **more}
        return trees.client.post(f"{trees.url}/feedback", json={"feedback": [item]})

    said = [{"box": [0, 1.5, 20, 30], "label": "tree"}, {"box": [5, 5, 6, 6.25], "label": "tree"}]
    assert say(said).json() == {"accepted": 1} and say([]).json() == {"accepted": 1}
    rows = read_rows(trees.log, "trees", hours(trees.log, "trees")[-1], FEEDBACK)
    assert [row["boxes"] for row in rows if row["prediction_id"] == answer["id"]] == [said, []]
    where = "feedback[0].boxes"
    for boxes, field in [
        (None, where), ("tree", where), ({}, where), ([None], f"{where}[0]"), ([[0, 0, 1, 1]], f"{where}[0]"),
        ([{"box": [0, 0, 1, 1]}], f"{where}[0].label"), ([{"label": "tree"}], f"{where}[0].box"),
        ([{"box": [0, 0, 1, 1], "label": "tree", "score": 1}], f"{where}[0]"),
        ([{"box": [0, 0, 1, 1], "label": "bush"}], f"{where}[0].label"),
        ([{"box": [0, 0, 1], "label": "tree"}], f"{where}[0].box"),
        ([{"box": [0, 0, 1, True], "label": "tree"}], f"{where}[0].box[3]"),
        ([{"box": [-1, 0, 1, 1], "label": "tree"}], f"{where}[0].box[0]"),
        ([{"box": [0, 0, 10**400, 1], "label": "tree"}], f"{where}[0].box[2]"),
        ([{"box": [3, 0, 3, 1], "label": "tree"}], f"{where}[0].box"),
        ([{"box": [0, 4, 3, 1], "label": "tree"}], f"{where}[0].box"),
    ]:  # fmt: skip
        assert error(say(boxes)) == (422, field)
    assert error(say([{"box": [0, 0, 1, 1], "label": "tree"}] * 1_001)) == (413, where)
    assert error(say([], label="tree"))[0] == 422


# --- drawn


def test_annotate_answers_with_the_picture(digits: Running, trees: Running) -> None:
    picture, corners = squares(1200, 800, 40)
    response = multipart(trees, [pictures.file(picture)], "?annotate=true")
    assert response.status_code == 200 and response.headers["content-type"] == "image/png"
    assert response.headers["x-model"].startswith("trees:")
    row = find(trees.log, "trees", response.headers["x-prediction-id"])
    assert row is not None and len(row["boxes"]) == 40
    drawn = np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB"))
    assert drawn.shape == picture.shape and (drawn != picture).any()
    x, y = map(int, corners[0][:2])
    assert len(set(drawn[y + CELL - 1, x])) > 1  # a coloured edge where all was grey
    plain = as_json(digits, [GOOD["jpeg"]], "?annotate=true")
    image = Image.open(io.BytesIO(plain.content))
    assert plain.headers["content-type"] == "image/png" and image.width >= 280 and image.height > image.width


def test_annotate_is_refused_where_it_makes_no_sense(digits: Running, service: Running) -> None:
    assert error(multipart(digits, [GOOD["png"]] * 2, "?annotate=true")) == (422, "annotate")
    assert error(multipart(digits, [GOOD["png"]], "?annotate=maybe")) == (422, "annotate")
    assert answers(multipart(digits, [GOOD["png"]] * 2, "?annotate=false"))
    text = service.client.post(f"{service.url}/predict?annotate=true", json={"texts": ["good"]})
    assert error(text) == (422, "annotate") and service.predict("good")


# --- refused


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_named(digits: Running, trees: Running, name: str) -> None:
    for service in (digits, trees):
        for send in (multipart, as_json):
            response = send(service, [GOOD["png"], BAD[name]])
            assert error(response) == (422, "images[1]"), response.text
            assert len(response.json()["error"]["message"]) > 20


def test_limits(digits: Running, trees: Running) -> None:
    png = GOOD["png"]
    assert len(answers(multipart(digits, [png] * 64))) == 64 and len(answers(multipart(trees, [png] * 16))) == 16
    assert error(multipart(digits, [png] * 65)) == error(multipart(trees, [png] * 17)) == (413, "images")
    assert error(as_json(trees, [png] * 17)) == (413, "images")
    padded = png + bytes(MAX_FILE_BYTES - len(png))  # what follows a picture's end is not the picture's
    assert answers(multipart(trees, [padded])) and answers(as_json(trees, [padded]))
    assert (
        error(multipart(trees, [png, padded + b"\0"]))
        == error(as_json(trees, [png, padded + b"\0"]))
        == (413, "images[1]")
    )
    assert error(multipart(trees, [padded] * 4)) == (413, "body")


@pytest.mark.parametrize(
    ("width", "height", "lines", "status"),
    [
        (7_000, 7_000, None, 200),
        (7_100, 7_100, 10, 413),
        (10_000_000, 6, 6, 413),
        (2**31 - 1, 2**31 - 1, 0, 422),
        (2**31 - 1, 1, 0, 422),
        (30_000, 30_000, 0, 422),
        (7_000, 7_000, 0, 422),
    ],
)  # fmt: skip
def test_decompression_bombs(digits: Running, width: int, height: int, lines: int | None, status: int) -> None:
    """Told by the header; and a header that lies is not believed."""
    before = psutil.Process(digits.process.pid).memory_info().rss
    bomb = pictures.png_of(width, height, lines)
    assert len(bomb) < 200_000
    response = multipart(digits, [bomb])
    assert response.status_code == status, response.text
    if status != 200:
        assert error(response)[1] == "images[0]"
    assert psutil.Process(digits.process.pid).memory_info().rss - before < GROWTH_BYTES


def test_many_large_pictures_together_are_refused(digits: Running, trees: Running) -> None:
    large = pictures.png_of(6_000, 6_000)
    for service in (digits, trees):
        assert error(multipart(service, [large] * 3)) == (413, "images")
    assert error(multipart(trees, [pictures.png_of(1_000_000, 2)])) == (413, "images")  # 2,500 tiles


HEAD = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x.png"\r\n\r\n'
HOSTILE: list[tuple[bytes, str, int, str]] = [
    (b"", "multipart/form-data; boundary=b", 422, "body"),
    (b"--b--\r\n", "multipart/form-data; boundary=b", 422, "images"),
    (HEAD + GOOD["png"], "multipart/form-data; boundary=b", 422, "body"),
    (HEAD + GOOD["png"] + b"\r\n--b", "multipart/form-data; boundary=b", 422, "body"),
    (HEAD + GOOD["png"] + b"\r\n--c--", "multipart/form-data; boundary=b", 422, "body"),
    (HEAD + b"\r\n--b--", "multipart/form-data; boundary=b", 422, "images[0]"),
    (HEAD + GOOD["png"] + b"\r\n--b--", "multipart/form-data", 422, "content-type"),
    (HEAD + GOOD["png"] + b"\r\n--b--", "multipart/form-data; boundary=", 422, "content-type"),
    (HEAD + GOOD["png"] + b"\r\n--b--", "multipart/form-data; boundary=" + "b" * 71, 422, "content-type"),
    (HEAD + GOOD["png"] + b"\r\n--b--", "multipart/mixed; boundary=b", 415, "content-type"),
    (HEAD.replace(b"images", b"image") + b"x\r\n--b--", "multipart/form-data; boundary=b", 422, "images[0]"),
    (HEAD.replace(b'; name="images"', b"") + b"x\r\n--b--", "multipart/form-data; boundary=b", 422, "images[0]"),
    (HEAD.replace(b"form-data", b"attachment") + b"x\r\n--b--", "multipart/form-data; boundary=b", 422, "images[0]"),
    (b"--b\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b", 422, "images[0]"),
    (b"--b\r\nno colon\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b", 422, "body"),
    (b"--b\r\n" + b"X: y\r\n" * 9 + HEAD[5:] + b"x\r\n--b--", "multipart/form-data; boundary=b", 422, "body"),
    (b"--b\r\nX: " + b"y" * 5_000 + b"\r\n" + HEAD[5:] + b"x\r\n--b--", "multipart/form-data; boundary=b", 422, "body"),
    (
        HEAD[:-2] + b"Content-Transfer-Encoding: base64\r\n\r\nx\r\n--b--",
        "multipart/form-data; boundary=b",
        422,
        "images[0]",
    ),
    (b"\r\n--b" * 500_000, "multipart/form-data; boundary=b", 413, "images"),
    (HEAD + b"\r\n--b\rX" * 500_000 + b"\r\n--b--", "multipart/form-data; boundary=b", 413, "images"),
    (HEAD + b"\r\n" * 1_000_000 + b"\r\n--b--", "multipart/form-data; boundary=b", 422, "images[0]"),
    ((HEAD + b"x\r\n") * 5_000 + b"--b--", "multipart/form-data; boundary=b", 413, "images"),
    (b"a" * 100_000, "multipart/form-data; boundary=b", 422, "body"),
    (HEAD + GOOD["png"] + b"\r\n--b--", 'multipart/form-data; boundary="b"; boundary*=c', 200, ""),
    (HEAD + GOOD["png"] + b"\r\n--b--\r\nand then", "Multipart/Form-Data;boundary=b;x=y", 200, ""),
    (b'{"images": [1]}', "application/json", 422, "images[0]"),
    (b'{"images": "aGVsbG8="}', "application/json", 422, "images"),
    (b'{"images": []}', "application/json", 422, "images"),
    (b'{"images": [""]}', "application/json", 422, "images[0]"),
    (b'{"images": ["****"]}', "application/json", 422, "images[0]"),
    (b'{"images": ["aGVsbG8"]}', "application/json", 422, "images[0]"),
    (b'{"images": ["aGVs\\nbG8="]}', "application/json", 422, "images[0]"),
    (b'{"images": ["\\ud800aaa"]}', "application/json", 422, "images[0]"),
    (b'{"images": [{"$base64": "aGVsbG8="}]}', "application/json", 422, "images[0]"),
    (b'{"images": [{"$media": "' + b"0" * 64 + b'", "bytes": 1}]}', "application/json", 422, "images[0]"),
    (b'{"images": ["http://127.0.0.1/x.png"]}', "application/json", 422, "images[0]"),
]


@pytest.mark.parametrize(("body", "kind", "status", "field"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies(digits: Running, body: bytes, kind: str, status: int, field: str) -> None:
    response = raw(digits, body, kind)
    assert response.status_code == status, response.text
    if status != 200:
        assert error(response) == (status, field), response.text


def mutated(chance: random.Random, content: bytes) -> bytes:
    """Cut, flipped, spliced, repeated; or a number in it replaced by an extreme one, as lengths and sizes are."""
    where = chance.randrange(len(content))
    early = chance.randrange(min(64, len(content)))
    extreme = chance.choice(
        [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\x80\0\0\0", b"\0\0\0\1"]
    )
    other = chance.choice(list(GOOD.values()))
    return [
        lambda: content[:where],
        lambda: content[:where] + bytes([chance.randrange(256)]) + content[where + 1 :],
        lambda: bytes(b ^ (1 << chance.randrange(8)) if chance.random() < 0.01 else b for b in content),
        lambda: content[:early] + extreme + content[early + 4 :],
        lambda: content[:where] + extreme + content[where + 4 :],
        lambda: content[:where] + chance.randbytes(chance.randrange(1, 200)) + content[where:],
        lambda: content[:where] + content[where + chance.randrange(1, 40) :],
        lambda: content[:where] + other[chance.randrange(len(other)) :],
        lambda: content[:early] + content[early:] * chance.randrange(2, 4),
    ][chance.randrange(9)]()


def expected(content: bytes) -> str | None:
    """What the classifier says of a file, or ``None`` where it is no picture."""
    try:
        pixels = as_input(decode(content), {"channels": 1, "size": [28, 28]})[0].astype(np.float32)
    except ValueError:
        return None
    sums = [pixels[:, [c for c in range(28) if c * 10 // 28 == tenth]].sum() for tenth in range(10)]
    return str(int(np.argmax(sums)))


def test_mutated_pictures(digits: Running, trees: Running) -> None:
    """Of each what the decoder says: an answer, and the right one, or a refusal that names the file. Never a fault."""
    chance = random.Random(2026)
    sources = [*GOOD.values(), *(pictures.file(pictures.noise(), kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP"))]
    processes = [psutil.Process(service.process.pid) for service in (digits, trees)]
    before = [process.memory_info().rss for process in processes]
    seen: Counter[int] = Counter()
    for number in range(MUTATIONS):
        content = mutated(chance, chance.choice(sources))
        for _ in range(chance.randrange(2)):
            content = mutated(chance, content or b"x")
        service = trees if number % 4 == 0 else digits
        response = (as_json if number % 3 == 0 else multipart)(service, [content])
        seen[response.status_code] += 1
        what = f"mutation {number}: {content[:60]!r} … of {len(content)} bytes → {response.text[:200]}"
        assert response.status_code in {200, 413, 422}, what
        if response.status_code != 200:
            assert error(response)[1] == "images[0]" or (not content and error(response)[1] == "images"), what
        elif service is digits:
            assert response.json()["predictions"][0]["label"] == expected(content), what
    assert seen[200] > MUTATIONS / 10 and seen[422] > MUTATIONS / 10, seen
    for service, process, size in zip((digits, trees), processes, before, strict=True):
        assert process.memory_info().rss - size < GROWTH_BYTES
        assert process.num_fds() < 100
        metrics = service.client.get(f"{service.url}/metrics").text.splitlines()
        assert not [line for line in metrics if line.startswith("lepton_requests_total") and 'status="5' in line]
    assert answers(multipart(digits, [GOOD["png"]]))[0]["label"] == str(pictures.COLUMN)


def test_no_training_code_is_shipped(digits: Running, trees: Running) -> None:
    from lepton_platform.serving.shipping import imported

    for service in (digits, trees):
        sources = Path(psutil.Process(service.process.pid).cwd())
        used = {name.split(".")[0] for path in sources.rglob("*.py") for name in imported(path)}
        assert not used & {"torch", "torchvision", "transformers", "scipy", "sklearn", "pandas"}
        mapped = {m.path for m in psutil.Process(service.process.pid).memory_maps()}
        assert not [path for path in mapped if "/torch/" in path or "/pandas/" in path or "/scipy" in path]


def test_the_schema_tells_both_ways(digits: Running, trees: Running) -> None:
    for service in (digits, trees):
        schema = service.client.get(f"{service.url}/schema.json").json()
        route = schema["paths"]["/predict"]["post"]
        assert set(route["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
        assert [p["name"] for p in route["parameters"]] == ["annotate"]
        said = schema["components"]["schemas"]["PredictRequest"]["examples"][0]
        assert answers(service.client.post(f"{service.url}/predict", json=said))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["negative", "positive"])
@pytest.mark.parametrize("task", ["digits", "trees"])
def test_by_schema(request: pytest.FixtureRequest, task: str, mode: str) -> None:
    """From the service's own document, both ways of sending: what it forbids is refused, and nothing is a fault."""
    import requests
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    service: Running = request.getfixturevalue(task)
    session, seen = requests.Session(), Counter()
    schema = schemathesis.openapi.from_url(f"{service.url}/schema.json")
    cases = schema["/predict"]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode(mode))

    @settings(
        max_examples=250, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases)
    def send(case: schemathesis.Case) -> None:
        answer = case.call(session=session)
        seen[answer.status_code, str(case.media_type)] += 1
        assert answer.status_code in {200, 413, 415, 422}, (case.body, answer.text)
        unknown = set(case.query or {}) - {"annotate"}  # of the query: ignored, as everywhere
        form = "multipart" in str(case.media_type) and isinstance(case.body, dict)
        unsent = form and any(value == [] for name, value in case.body.items() if name != "images")  # no part of a form
        assert mode == "positive" or unknown or unsent or answer.status_code >= 400, (
            case.query,
            case.body,
            answer.content[:80],
        )

    send()
    assert {kind for _, kind in seen} >= {"application/json", "multipart/form-data"}, seen
