"""EfficientNet-Lite0: the packaged weights in their places, as a detector's backbone."""

import pytest
import torch

from lepton_platform.models.detector import FeatureParams, Features, load_pretrained
from lepton_platform.models.efficientnet_lite import PACKAGED, EfficientNetLite, load_lite
from lepton_platform.stage import StageFailed


@pytest.fixture(scope="module")
def network(cache_dir):
    made = EfficientNetLite().eval()
    load_lite(made, PACKAGED, cache_dir)
    return made


def picture() -> torch.Tensor:
    """Two waves and a step, one a channel, of about the range that the network expects: (1, 3, 64, 96)."""
    x, y = torch.meshgrid(torch.arange(96.0), torch.arange(64.0), indexing="xy")
    return torch.stack([torch.sin(x / 7), torch.cos(y / 5), (x > y).float()])[None]


@torch.inference_mode()
def test_the_packaged_weights_see_what_the_published_network_sees(network):
    """Means of its four stages; those of the package `efficientnet_lite_pytorch` on the same picture, block by block."""
    seen = network(picture())
    assert [tuple(level.shape[1:]) for level in seen] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]
    assert [round(level.abs().mean().item(), 3) for level in seen] == [8.79, 7.686, 4.425, 2.143]


@torch.inference_mode()
def test_a_detector_reads_them_through_its_own_normalisation(network, cache_dir):
    features = Features(FeatureParams(backbone="efficientnet_lite0", norm="frozen")).eval()
    load_pretrained(features, PACKAGED, cache_dir)
    image = (picture() * 128 + 127).clamp(0, 255).round().to(torch.uint8)
    mine = features.backbone((image.float() - 127) / 128)
    theirs = network((image.float() - 127) / 128)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    levels = features(image)
    assert [tuple(level.shape[2:]) for level in levels] == [(8, 12), (4, 6)]


def test_another_name_is_refused(cache_dir):
    with pytest.raises(
        StageFailed, match=r"'efficientnet-b7' is not known; of this backbone there is 'efficientnet-lite0'"
    ):
        load_lite(EfficientNetLite(), "efficientnet-b7", cache_dir)
