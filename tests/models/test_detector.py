"""The learner of boxes: where it looks, what each place learns, and that it learns."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data.images import decode
from lepton_platform.models import one_stage, two_stage
from lepton_platform.models.boxes import IGNORED, NOTHING, iou
from lepton_platform.models.detection import Detection
from lepton_platform.models.detector import FeatureParams, Features
from lepton_platform.stage import StageFailed
from tests.models.scenes import LABELS, scenes

LEARNER = Detection(content="image", target="boxes", labels=LABELS, decode=decode)
FEATURES = {"widths": [8, 16, 16, 16], "blocks": [1, 1, 1, 1], "width": 16}
SMALL = {"features": FEATURES, "convolutions": 1}
TWICE = {"kind": "faster_rcnn", "features": FEATURES, "anchors": 2, "proposals": 40, "hidden": 32}


ROWS = scenes(8, 0)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return LEARNER.configure(SMALL, ROWS, folder, folder)


def test_places_are_where_the_network_looks(config):
    network = LEARNER.build(config).eval()
    batch = LEARNER.encode(config, None, ROWS).batch([0, 4])
    with torch.inference_mode():
        dense = network(**batch.inputs)
    where = batch.targets["places"]
    assert dense.shape == (2, 12 * 16 + 6 * 8, 4 + 2) and where.shape == (2, dense.shape[1], 3)
    middle = (dense[:, :, :2] + dense[:, :, 2:4]) / 2
    assert (middle - where[:, :, :2]).abs().max() < 0.5 * where[:, :, 2].max()
    side = dense[:, :, 2] - dense[:, :, 0]
    assert (side / config["prior_px"]).log().abs().max() < 0.5  # squares of the median side, before anything is learnt
    assert dense[:, :, 4:].sigmoid().max() < 0.1  # and hardly sure of anything
    assert config["prior_px"] == pytest.approx(21, abs=6)


def test_pictures_of_different_sizes_share_a_batch(config):
    rows = pa.concat_tables([scenes(2, 1), scenes(1, 2, (40, 200))])
    samples = LEARNER.encode(config, None, rows)
    batch = samples.batch([2, 0])
    assert batch.inputs["image"].shape == (2, 3, 96, 224)
    assert samples.sizes.tolist() == [12, 12, 14]
    assert batch.targets["labels"].shape == (2, 3)


def test_without_boxes_there_are_no_targets(config):
    batch = LEARNER.encode(config, None, ROWS.drop_columns(["boxes"])).batch([0])
    assert not batch.targets and batch.inputs["image"].shape == (1, 3, 96, 128)


def test_views_are_rows_of_their_own(tmp_path):
    section = {**SMALL, "views": 3, "augment": {"crop_px": 64, "flip_vertical": True}}
    config = LEARNER.configure(section, ROWS, tmp_path, tmp_path)
    samples = LEARNER.encode(config, tmp_path, ROWS, training=True)
    assert samples.sizes.tolist() == [4] * 24
    torch.manual_seed(3)
    one, other = samples.batch([0, 8]), samples.batch([0, 8])
    assert one.inputs["image"].shape == (2, 3, 64, 64) and not torch.equal(one.inputs["image"], other.inputs["image"])
    torch.manual_seed(3)
    assert torch.equal(samples.batch([0, 8]).inputs["image"], one.inputs["image"])
    assert LEARNER.encode(config, tmp_path, ROWS).sizes.tolist() == [12] * 8  # to judge, pictures are whole


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_every_box_is_learnt_by_places_near_it_and_each_place_learns_one(seed, boxes):
    rng = torch.Generator().manual_seed(seed)
    where = one_stage.places(64, 96, (8, 16))[None]
    low = torch.rand(1, boxes, 2, generator=rng) * torch.tensor([80.0, 50.0])
    truth = torch.cat([low, low + 4 + torch.rand(1, boxes, 2, generator=rng) * 20], dim=2)
    labels = torch.randint(0, 2, (1, boxes), generator=rng)
    dense = torch.cat(
        [truth[:, torch.randint(0, boxes, (where.shape[1],), generator=rng)], torch.zeros(1, where.shape[1], 2)], 2
    )
    found = one_stage.assign(dense, where, truth, labels, most=5)
    assert ((found.score >= 0) & (found.score <= 1 + 1e-5)).all()
    assert (found.score[~found.positive] == 0).all()
    centre, stride = where[0, :, :2], where[0, :, 2:]
    for place in found.positive[0].nonzero()[:, 0].tolist():
        box = truth[0, found.box[0, place]]
        inside = (centre[place] > box[:2]).all() and (centre[place] < box[2:]).all()
        assert inside or ((centre[place] - (box[:2] + box[2:]) / 2).abs() <= stride[place]).all()
    counts = torch.bincount(found.box[0][found.positive[0]], minlength=boxes)
    assert (counts <= 5).all()
    lonely = [n for n in range(boxes) if iou(truth[0], truth[0])[n].sum() < 1.01]
    assert (counts[lonely] > 0).all()  # what overlaps no other is learnt by somebody


def test_nothing_is_learnt_in_a_crowd_and_padding_is_no_box():
    where = one_stage.places(64, 64, (8,))[None]
    dense = torch.zeros(1, where.shape[1], 5)
    dense[:, :, 2:4] = 10.0
    crowd = torch.tensor([[[0.0, 0, 32, 32], [0, 0, 0, 0]]])
    found = one_stage.assign(dense, where, crowd, torch.tensor([[IGNORED, NOTHING]]))
    inside = (where[0, :, :2] < 32).all(1)
    assert not found.positive.any() and torch.equal(found.counted[0], ~inside)
    sure = dense.clone()
    sure[:, inside, 4] = 9.0
    losses = [one_stage.row_losses(d, where, crowd, torch.tensor([[IGNORED, NOTHING]])) for d in (dense, sure)]
    assert torch.equal(*losses)


def test_overlap_is_the_same_in_torch_and_numpy():
    rng = np.random.default_rng(0)
    low = rng.random((2, 30, 2)) * 50
    one, other = (np.concatenate([p, p + 1 + rng.random((30, 2)) * 40], 1).astype(np.float32) for p in low)
    found = one_stage.pair_iou(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    assert found == pytest.approx(np.diag(iou(one, other)), abs=1e-5)
    far = one_stage.pair_iou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([9.0, 0, 10, 1]), generalised=True)
    assert far == pytest.approx(-0.8)


def test_a_rows_loss_is_its_own(config):
    torch.manual_seed(0)
    network = LEARNER.build(config).eval()
    samples = LEARNER.encode(config, None, ROWS)

    def losses(rows):
        batch = samples.batch(rows)
        with torch.inference_mode():
            return LEARNER.losses(network(**batch.inputs), batch, 0.0)

    together = losses([0, 1, 2, 4])
    assert together.shape == (4,)
    assert torch.allclose(together, torch.cat([losses([n]) for n in (0, 1, 2, 4)]), rtol=1e-3)


@pytest.mark.parametrize(
    "section",
    [pytest.param(SMALL, id="one_stage"), pytest.param(TWICE, id="faster_rcnn", marks=pytest.mark.slow)],
)
def test_it_learns(tmp_path, section):
    rows = scenes(24, 5)
    config = LEARNER.configure({**section, "augment": {"flip_horizontal": True}}, rows, tmp_path, tmp_path)
    torch.manual_seed(0)
    network, samples = LEARNER.build(config), LEARNER.encode(config, tmp_path, rows, training=True)
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    for step in range(120):
        batch = samples.batch(np.arange(8) + 8 * (step % 3))
        LEARNER.losses(network(**batch.inputs), batch, 0.0).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    later = LEARNER.encode(config, tmp_path, scenes(10, 6)).batch(np.arange(10))
    with torch.inference_mode():
        outputs = network.eval()(**later.inputs)
    measured = LEARNER.measures(outputs, later)
    assert {name: values.shape for name, values in measured.items()} == dict.fromkeys(("loss", "ap50", "ap40"), (10,))
    assert measured["ap50"].mean() > 0.35  # 0 before
    scores = LEARNER.scores(outputs, {"postprocess": {**config["postprocess"], "max_detections": 5}})
    assert scores.shape == (10, 5, 6) and scores.dtype == torch.float32
    assert (scores[:, :, 4].diff(dim=1) <= 0).all() and set(scores[:, :, 5].unique().tolist()) <= {0.0, 1.0}


def test_a_second_look_learns_each_row_for_itself_and_answers_as_one_stage_does(tmp_path):
    config = LEARNER.configure({**TWICE, "augment": {"crop_px": 64}}, ROWS, tmp_path, tmp_path)
    assert np.diff(np.ravel(config["anchors_px"])).min() >= 0 and np.shape(config["anchors_px"]) == (2, 2)
    torch.manual_seed(0)
    network = LEARNER.build(config)
    batch = LEARNER.encode(config, tmp_path, ROWS, training=True).batch(np.arange(4))
    losses = network(**batch.inputs)
    assert losses.shape == (4,) and torch.isfinite(losses).all()
    assert LEARNER.losses(losses, batch, 0.0) is losses
    losses.mean().backward()
    assert all(weights.grad is not None for weights in network.parameters())
    later = LEARNER.encode(config, tmp_path, ROWS).batch([0, 4])
    assert set(later.inputs) == {"image"} and set(later.targets) == {"boxes", "labels"}
    network.eval()
    with torch.inference_mode():
        together = network(**later.inputs)
        alone = torch.cat([network(image=later.inputs["image"][n : n + 1]) for n in range(2)])
        assert network(image=torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 40, 6)  # fewer places than that
    assert together.shape == (2, 40, 6) and torch.allclose(together, alone, atol=1e-3)
    assert set(LEARNER.depths(network)) == {name for name, _ in network.named_parameters()}


def test_class_logits_are_softmaxes():
    logits = torch.randn(7, 4)
    found = two_stage.against_all_others(logits).sigmoid()
    assert torch.allclose(found, logits.softmax(1)[:, 1:], atol=1e-6)


def test_a_proposal_is_read_on_the_level_of_its_size():
    pool = two_stage.Pool((8, 16)).eval()
    maps = [torch.full((1, 1, 16, 16), 1.0), torch.full((1, 1, 8, 8), 2.0)]
    rois = torch.tensor([[0, 0, 0, 20, 20], [0, 0, 0, 63, 63], [0, 10, 10, 75, 75], [0, 0, 0, 120, 120.0]])
    answers = pool.pooled(maps, rois)
    assert answers.amax((1, 2, 3)).round().tolist() == [1, 1, 2, 2]
    assert torch.allclose(pool.train().pooled(maps, rois), answers)  # training reads only what it needs


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_config_alone_rebuilds_the_network(tmp_path, norm):
    section = {"features": {**FEATURES, "norm": norm, "levels": [4, 16, 32]}}
    config = LEARNER.configure(section, ROWS, tmp_path, tmp_path)
    network, again = LEARNER.build(config).eval(), LEARNER.build(config).eval()
    again.load_state_dict(network.state_dict())
    few, more = LEARNER.examples(config)
    with torch.inference_mode():
        assert torch.equal(network(**more), again(**more))
        assert network(**few).shape == (2, 16 * 24 + 4 * 6 + 2 * 3, 6)
    depths = LEARNER.depths(network)
    assert set(depths) == {name for name, _ in network.named_parameters()}
    assert sorted(set(depths.values())) == list(range(8))
    assert depths["features.backbone.stem.0.0.weight"] == 7 and depths["head.boxes.bias"] == 0


def test_a_resnet_is_a_backbone_too():
    maps = Features(FeatureParams(backbone="resnet18", norm="frozen", width=32)).eval()
    found = maps(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    assert [tuple(one.shape) for one in found] == [(1, 32, 8, 12), (1, 32, 4, 6)]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"level": 8}, r"train\.network is not valid.*views"),
        ({"features": {"levels": [16, 8]}}, r"train\.network\.features is not valid.*rising order"),
        ({"features": {"norm": "frozen"}}, "goes with pretrained weights"),
        ({"augment": {"flips": True}}, r"train\.network\.augment is not valid"),
        ({"postprocess": {"iou_threshold": 2}}, r"train\.network\.postprocess is not valid"),
        ({"weights": "somewhere"}, "goes with another backbone"),
    ],
)
def test_wrong_parameters_are_told(tmp_path, section, said):
    with pytest.raises(StageFailed, match=said):
        LEARNER.configure(section, ROWS, tmp_path, tmp_path)


def test_boxes_that_cannot_be_learnt_are_told(config, tmp_path):
    other = ROWS.slice(0, 1).to_pylist()
    other[0]["boxes"][0]["label"] = "hexagon"
    with pytest.raises(StageFailed, match="'hexagon' in row 0; the labels are: square, disc"):
        LEARNER.encode(config, None, pa.Table.from_pylist(other, schema=ROWS.schema))
    with pytest.raises(StageFailed, match="No training row has a box"):
        LEARNER.configure(SMALL, ROWS.slice(4, 1), tmp_path, tmp_path)
