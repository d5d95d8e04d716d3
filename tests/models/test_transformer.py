"""The Lepton Transformer: masks, both places of the norm, and BERT's weights giving BERT's answers."""

import json

import pytest
import torch
from pydantic import ValidationError

from lepton_platform.models.bert import bert_sizes, load_bert
from lepton_platform.models.pretrained import minilm
from lepton_platform.models.transformer import Transformer, TransformerSizes, sinusoids
from lepton_platform.stage import StageFailed

SMALL = {"vocabulary": 50, "width": 16, "layers": 2, "heads": 4, "hidden": 32, "positions": 12}


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("position_kind", ["learned", "sinusoidal"])
def test_padding_changes_no_real_token(norm, position_kind):
    torch.manual_seed(0)
    encoder = Transformer(TransformerSizes(**SMALL, norm=norm, position_kind=position_kind)).eval()
    alone = torch.tensor([[3, 7, 9]])
    padded = torch.tensor([[3, 7, 9, 44, 45], [1, 2, 3, 4, 5]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with torch.inference_mode():
        expected = encoder(alone, torch.ones_like(alone))[0]
        assert torch.allclose(encoder(padded, mask)[0, :3], expected, atol=1e-6)


def test_order_matters():
    torch.manual_seed(0)
    encoder = Transformer(TransformerSizes(**SMALL)).eval()
    ids = torch.tensor([[3, 7, 9], [9, 7, 3]])
    with torch.inference_mode():
        one, other = encoder(ids, torch.ones_like(ids)).mean(1)
    assert not torch.allclose(one, other, atol=1e-3)


def test_sinusoids_follow_the_formula():
    table = sinusoids(6, 8)
    assert table[5, 2] == pytest.approx(torch.sin(torch.tensor(5 / 10_000 ** (2 / 8))).item(), abs=1e-6)
    assert table[5, 3] == pytest.approx(torch.cos(torch.tensor(5 / 10_000 ** (2 / 8))).item(), abs=1e-6)
    assert sinusoids(4, 5).shape == (4, 5)


def test_a_table_that_a_formula_gives_is_not_stored():
    encoder = Transformer(TransformerSizes(**SMALL))
    assert "embeddings.positions" not in encoder.state_dict()


def test_heads_must_divide_the_width():
    with pytest.raises(ValidationError, match="3 heads do not divide a width of 16"):
        TransformerSizes(**{**SMALL, "heads": 3})


def test_the_packaged_encoder_answers_as_transformers_has_it(cache_dir):
    from transformers import AutoModel

    folder = minilm(cache_dir)
    ours = Transformer(bert_sizes(folder, 0.1, 0.1)).eval()
    load_bert(ours, folder)
    theirs = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    ids = torch.randint(0, 30_000, (3, 40), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    with torch.inference_mode():
        difference = ours(ids, mask) - theirs(ids, attention_mask=mask).last_hidden_state
    assert difference[mask.bool()].abs().max() < 1e-5


def test_other_networks_are_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "hidden_act": "gelu"}))
    with pytest.raises(StageFailed, match=r"type 'gpt2'.*'bert' with 'gelu'"):
        bert_sizes(tmp_path, 0.1, 0.1)
