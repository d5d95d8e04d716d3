"""The learner of pictures' labels: it learns, its config alone rebuilds it, and it says what is wrong with its parameters."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lepton_platform.data.images import decode
from lepton_platform.models.image_classifier import ImageClassifier
from lepton_platform.models.resnet import Resnet, load_resnet
from lepton_platform.stage import StageFailed

LEARNER = ImageClassifier(content="image", target="label", labels=("across", "down"), decode=decode)
SMALL = {"channels": 1, "size_px": [12, 12], "sizes": {"widths": [8, 8], "hidden": 16}}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def bars(rows: int, seed: int, side: int = 12) -> pa.Table:
    """A bright bar across or down, somewhere."""
    rng = np.random.default_rng(seed)
    pictures, labels = [], []
    for number in range(rows):
        pixels = rng.integers(0, 90, (side, side), dtype=np.uint8)
        at = rng.integers(1, side - 2)
        label = ("across", "down")[number % 2]
        (pixels if label == "across" else pixels.T)[at : at + 2] = 220
        pictures.append(png(pixels))
        labels.append(label)
    return pa.table({"image": pictures, "label": labels})


ROWS = bars(80, 0)


@pytest.mark.parametrize("sizes", [SMALL["sizes"], {"kind": "resnet18"}])
def test_config_alone_rebuilds_the_network(tmp_path, sizes):
    config = LEARNER.configure({**SMALL, "sizes": sizes}, ROWS, tmp_path, tmp_path)
    network, again = LEARNER.build(config).eval(), LEARNER.build(config).eval()
    again.load_state_dict(network.state_dict())
    batch = LEARNER.encode(config, tmp_path, ROWS).batch([0, 3, 1])
    assert batch.inputs["image"].shape == (3, 1, 12, 12) and batch.inputs["image"].dtype == torch.uint8
    assert batch.targets["label"].tolist() == [0, 1, 1]
    with torch.inference_mode():
        outputs = network(**batch.inputs)
        assert torch.equal(outputs, again(**batch.inputs))
        alone = torch.cat([network(image=batch.inputs["image"][i : i + 1]) for i in range(3)])
    assert torch.allclose(outputs, alone, atol=1e-5)  # the rest of the batch makes no difference
    assert torch.allclose(LEARNER.scores(outputs, config).sum(1), torch.ones(3))
    depths = LEARNER.depths(network)
    assert set(depths) == {name for name, _ in network.named_parameters()}
    assert depths["head.weight"] == 0 and sorted(set(depths.values())) == list(range(max(depths.values()) + 1))
    first = max(depths, key=depths.__getitem__)
    assert network.get_parameter(first).shape[1:2] in ((1,), ())  # the pixels' own layer is the farthest
    assert config["files"] == [] and config["inputs"] == ["image"]
    few, more = LEARNER.examples(config)
    assert network(**few).shape == (2, 2) and network(**more).shape == (3, 2)


def test_pixels_are_normalised_by_the_training_rows(tmp_path):
    config = LEARNER.configure(SMALL, ROWS, tmp_path, tmp_path)
    pixels = np.stack([decode(data)[:, :, 0] for data in ROWS["image"].to_pylist()])
    assert config["mean"] == [pytest.approx(pixels.mean(), abs=1e-3)]
    assert config["deviation"] == [pytest.approx(pixels.std(), abs=1e-3)]


def test_it_learns(tmp_path):
    config = LEARNER.configure(SMALL, ROWS, tmp_path, tmp_path)
    torch.manual_seed(0)
    network, samples = LEARNER.build(config), LEARNER.encode(config, tmp_path, ROWS, training=True)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(20):
        batch = samples.batch(np.arange(80))
        LEARNER.losses(network(**batch.inputs), batch, 0.0).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    later = LEARNER.encode(config, tmp_path, bars(40, 1)).batch(np.arange(40))
    with torch.inference_mode():
        measured = LEARNER.measures(network.eval()(**later.inputs), later)
    assert measured["accuracy"].mean() > 0.9 and measured["loss"].shape == (40,)


def test_views_differ_where_they_are_wanted_and_in_training_alone(tmp_path):
    config = LEARNER.configure({**SMALL, "augment": {"shift_px": 2, "degrees": 10}}, ROWS, tmp_path, tmp_path)
    plain, views = (
        LEARNER.encode(config, tmp_path, ROWS, training=t).batch([0]).inputs["image"] for t in (False, True)
    )
    assert np.array_equal(plain[0, 0].numpy(), decode(ROWS["image"][0].as_py())[:, :, 0])
    assert views.shape == plain.shape and not torch.equal(plain, views)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"size": [3, 3]}, r"train\.network is not valid.*size_px"),
        ({"channels": 2}, r"channels is 1 \(grey\) or 3"),
        ({"size_px": [3, 9], "sizes": {"widths": [8, 8]}}, "need sides of 4"),
        ({"sizes": {"kind": "vgg"}}, r"train\.network\.sizes is not valid"),
        ({"augment": {"turn": 3}}, r"train\.network\.augment is not valid"),
        ({"augment": {"crop_px": 64}}, "is a detector's"),
        ({"weights": "somewhere"}, "goes with sizes.kind: resnet18"),
    ],
)
def test_wrong_parameters_are_told(tmp_path, section, said):
    with pytest.raises(StageFailed, match=said):
        LEARNER.configure(section, ROWS, tmp_path, tmp_path)


def test_a_broken_picture_and_an_unknown_label_are_told_by_row(tmp_path):
    config = LEARNER.configure(SMALL, ROWS, tmp_path, tmp_path)
    broken = pa.table({"image": [ROWS["image"][0].as_py(), b"GIF89a nothing"], "label": ["down", "down"]})
    with pytest.raises(StageFailed, match="picture of row 1 cannot be used"):
        LEARNER.encode(config, tmp_path, broken).batch([0, 1])
    with pytest.raises(StageFailed, match="'up' in row 0"):
        LEARNER.encode(config, tmp_path, pa.table({"image": [b""], "label": ["up"]}))


def test_pretrained_weights_come_from_safetensors_under_torchvisions_names(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    source = resnet18(weights=None)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    network = Resnet("resnet18").eval()
    load_resnet(network, str(tmp_path), tmp_path)
    picture = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        x = source.eval().maxpool(source.relu(source.bn1(source.conv1(picture))))
        wanted = source.layer4(source.layer3(source.layer2(source.layer1(x))))
        assert torch.equal(network(picture)[-1], wanted)
        grey = Resnet("resnet18", channels=1).eval()
        load_resnet(grey, str(tmp_path / "model.safetensors"), tmp_path)
        one = picture[:, :1]
        same = network(one.expand(-1, 3, -1, -1))[-1]
        assert torch.allclose(grey(one)[-1], same, atol=1e-4)
    with pytest.raises(StageFailed, match="does not hold the weights of this backbone"):
        load_resnet(Resnet("resnet50"), str(tmp_path), tmp_path)
    with pytest.raises(StageFailed, match="no safetensors file"):
        load_resnet(network, str(tmp_path / "model.pth"), tmp_path)
    with pytest.raises(StageFailed, match="neither a safetensors file"):
        load_resnet(network, "nothing", tmp_path)
