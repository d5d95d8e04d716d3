"""Photos through the data stages: what is set aside and why, what the contract sees of boxes, features of tiles."""

from pathlib import Path

import numpy as np
import pytest

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.images import encode_png
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.trees import preprocess, source
from lepton_platform.tasks.trees.source import SourceParams
from tests.data.pictures import meadow, saved
from tests.tasks.stages import checked, cleaned, featured

DEMO = {"min_size": 1_024, "max_size": 4_000_000, "similarity": 0.9}
SMOKE = {"min_rows": 4, "min_boxes": 50}


@pytest.fixture(scope="module")
def records(cache_dir: Path) -> list[dict]:
    return list(source.records(SourceParams(tiles_per_photo=2), cache_dir))


def box(x1=10, y1=10, x2=30, y2=30, **more) -> dict:
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "label": "tree", "crowd": False, "owned": True, **more}


def test_real_tiles_stay_and_what_cannot_be_used_is_set_aside(records, tmp_path):
    small = next(row for row in records if row["photo"] == "OSBS_029")
    worse = saved(np.asarray(preprocess.decode(small["image"])), "JPEG", quality=60)
    bad = {
        "again": {"image": saved(preprocess.decode(small["image"]), "TIFF")},
        "like": {"image": worse},
        "cut": {"image": small["image"][:9_000]},
        "unreadable here": {"image": b"photo"},
        "half a box": {"boxes": [box(), box(x2=None)]},
        "inverted": {"boxes": [box(x1=40)]},
        "no boxes": {"boxes": None},
        "source": {"problem": "b.png: the picture is broken"},
        "tiny": {"image": encode_png(meadow(20, 20)), "boxes": []},
    }
    rows = [{**small, "id": name, **changes} for name, changes in bad.items()]
    stay, aside = cleaned("trees", [*records, *rows], tmp_path, **DEMO)
    assert [row["id"] for row in stay] == [row["id"] for row in records]
    assert {name: aside[name]["reason"] for name in bad} == {
        "again": "duplicate",
        "like": "near_duplicate",
        "cut": "unreadable",
        "unreadable here": "unreadable",
        "half a box": "box_malformed",
        "inverted": "box_inverted",
        "no boxes": "missing_field",
        "source": "malformed",
        "tiny": "too_small",
    }
    assert aside["half a box"]["detail"] == "box 2 of 2 (x1 10 y1 10 x2 – y2 30): its corners are not four numbers"
    assert aside["cut"]["image"] == small["image"][:9_000]


@pytest.fixture(scope="module")
def clean(records, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trees")
    cleaned("trees", records, folder, **DEMO)
    return folder


def test_the_contract_holds_and_features_are_whole(clean):
    assert checked("trees", clean, **SMOKE)["rows"] == 6
    views = featured("trees", clean)
    table = views["image_statistics"].read()
    assert table.num_rows == 6 and min(table["excess_green"].to_pylist()) > 0
    vectors = np.array(views["image_descriptor"].read()["descriptor"].to_pylist())
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)


def changed_rows(folder: Path, clean: Path, change) -> None:
    table = Dataset(clean / "clean/rows").read()
    rows = table.to_pylist()
    Dataset(folder / "clean/rows").write(table.schema.empty_table().from_pylist(change(rows) or rows, table.schema))


def first_box(**values):
    return lambda rows: next(row["boxes"][0] for row in rows if row["boxes"]).update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (first_box(x1=-3.0), "Every box lies in its picture"),
        (first_box(label="shrub"), "Every box is one of tree"),
        (first_box(x1=None), "No part of a box is missing"),
        (first_box(x1=100, y1=100, x2=103, y2=103), "A box is 4 to 400 pixels"),
        (first_box(x1=100, y1=100, x2=190, y2=110), "at most 4 times the shorter"),
        (lambda rows: rows[0].update(width=rows[0]["width"] + 1), "'width' and 'height' are the picture's"),
        (lambda rows: rows[0].update(core=[0, 0, 9_999, 9]), "Every core is a rectangle in its picture"),
        (
            lambda rows: [rows[0], {**rows[1], "left": rows[0]["left"], "top": rows[0]["top"]}, *rows[2:]],
            "No two cores",
        ),
        (lambda rows: [{**row, "boxes": []} if n < 4 else row for n, row in enumerate(rows)], "have no box"),
        (lambda rows: [{**row, "boxes": row["boxes"][:5]} for row in rows], "at least 50 boxes"),
        (lambda rows: rows[0].update(image=b"\xff\xd8 a JPEG" * 9), "Every 'image' is a PNG file"),
        (lambda rows: [*rows, {**rows[0], "id": "copy", "photo": "p"}], "No two rows share 'image'"),
    ],
)
def test_what_breaks_the_contract_is_named_without_showing_pictures(clean, tmp_path, change, said):
    changed_rows(tmp_path, clean, change)
    with pytest.raises(StageFailed) as failed:
        checked("trees", tmp_path, **SMOKE)
    found = failed.value.details["failed"]
    assert said in " ".join(verdict["description"] for verdict in found)
    assert all(verdict["error"] is None for verdict in found) and "PNG\\r" not in str(found)
