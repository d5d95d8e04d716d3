"""The embedding without torch is torch's, whatever the texts; and it says what is wrong with an encoder."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lepton_platform.models.bert_graph import bert_graph, fits
from lepton_platform.models.embedding import embed
from lepton_platform.models.light_embedding import embed_light
from lepton_platform.models.pretrained import minilm
from lepton_platform.stage import StageFailed

TEXTS = ["", "A dull film.", "naïve 映画 🎬", "word " * 400, "?!", *(f"Review {n}: " + "good " * n for n in range(20))]


@pytest.fixture(scope="module")
def encoder(cache_dir: Path) -> Path:
    return minilm(cache_dir)


@pytest.mark.parametrize("max_tokens", [8, 64, 512])
def test_it_is_torchs_to_the_sixth_digit(encoder: Path, max_tokens: int) -> None:
    ours, theirs = embed_light(TEXTS, encoder, max_tokens=max_tokens), embed(TEXTS, encoder, max_tokens=max_tokens)
    assert ours.shape == theirs.shape == (len(TEXTS), 384) and ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-6
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-6)


def test_the_same_texts_have_the_same_bytes_and_none_have_none(encoder: Path) -> None:
    once, again = (embed_light(TEXTS, encoder, max_tokens=32) for _ in range(2))
    assert once.tobytes() == again.tobytes()
    assert embed_light([], encoder).shape == (0, 384)


def test_no_torch_is_imported(encoder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lepton_platform.models.light_embedding import embed_light; "
        "embed_light(['a film'], Path(sys.argv[1])); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(encoder)], check=True)


def test_the_graph_holds_no_weights(encoder: Path) -> None:
    assert fits(encoder) and len(bert_graph(encoder).SerializeToString()) < 100_000


def test_a_weight_that_is_missing_or_of_another_type_is_named(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((encoder / "config.json").read_bytes())
    name = "embeddings.word_embeddings.weight"
    for header, said in (({}, "is missing"), ({name: {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}, "F16")):
        told = json.dumps(header).encode()
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(told)) + told)
        with pytest.raises(StageFailed, match=f"{name}.*{said}"):
            bert_graph(tmp_path)
