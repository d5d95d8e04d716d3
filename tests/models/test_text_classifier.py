"""Texts to tokens to labels: any string is accepted, what is wrong is named."""

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.models.text_classifier import TextClassifier
from lepton_platform.models.tokens import load_tokenizer, tokenize, train_tokenizer
from lepton_platform.stage import StageFailed

CORPUS = ["a warm and funny film", "a cold and dull film", "funny, warm, and never dull", "dull"] * 5
LEARNER = TextClassifier(content="said", target="kind", labels=("no", "yes"))
ROWS = pa.table({"said": CORPUS, "kind": ["yes", "no", "yes", "no"] * 5})
SCRATCH = {"kind": "rnn", "vocabulary": 60, "sizes": {"width": 8, "hidden": 8}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(CORPUS, 60).save(str(path))
    return load_tokenizer(path, 8)


# Strategy without categories excluded: lone surrogates are strings too.
@given(st.lists(st.text(st.characters(codec=None), max_size=60), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_strings_become_rows_that_batches_give_back(tokenizer, texts, random):
    found = tokenize(tokenizer, texts)
    assert len(found.sizes) == len(texts)
    assert all(2 <= size <= 8 for size in found.sizes)  # the two ends are always there
    order = random.sample(range(len(texts)), len(texts))
    batch = found.padded(order)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    for at, row in enumerate(order):
        real = batch["attention_mask"][at].bool()
        ids = batch["input_ids"][at]
        assert ids[real].tolist() == found.ids[found.starts[row] : found.starts[row + 1]].tolist()
        assert (ids[~real] == found.pad).all()


def test_a_vocabulary_is_learnt_the_same_twice():
    assert train_tokenizer(CORPUS, 60).to_str() == train_tokenizer(CORPUS, 60).to_str()


@pytest.mark.parametrize("kind", ["rnn", "transformer"])
def test_config_alone_rebuilds_the_network(tmp_path, kind):
    sizes = {"width": 8, "hidden": 8, "layers": 2} | ({"heads": 2} if kind == "transformer" else {})
    section = {"kind": kind, "vocabulary": 60, "max_tokens": 10, "sizes": sizes}
    config = LEARNER.configure(section, ROWS, tmp_path, tmp_path)
    network, again = LEARNER.build(config).eval(), LEARNER.build(config).eval()
    again.load_state_dict(network.state_dict())
    batch = LEARNER.encode(config, tmp_path, ROWS).batch([0, 3, 1])
    with torch.inference_mode():
        outputs = network(**batch.inputs)
        assert torch.equal(outputs, again(**batch.inputs))
        scores = LEARNER.scores(outputs, config)
    assert scores.shape == (3, 2)
    assert torch.allclose(scores.sum(1), torch.ones(3))
    depths = LEARNER.depths(network)
    assert set(depths) == {name for name, _ in network.named_parameters()}
    assert sorted(set(depths.values())) == [0, 1, 2, 3]


def test_answers_do_not_depend_on_the_rest_of_the_batch(tmp_path):
    config = LEARNER.configure(SCRATCH, ROWS, tmp_path, tmp_path)
    network = LEARNER.build(config).eval()
    samples = LEARNER.encode(config, tmp_path, ROWS)
    with torch.inference_mode():
        alone = network(**samples.batch([3]).inputs)
        among = network(**samples.batch([0, 3, 2]).inputs)[1:2]
    assert torch.allclose(alone, among, atol=1e-6)


def test_without_targets_there_are_samples_all_the_same(tmp_path):
    config = LEARNER.configure(SCRATCH, ROWS, tmp_path, tmp_path)
    batch = LEARNER.encode(config, tmp_path, ROWS.select(["said"])).batch([0])
    assert batch.targets == {}


def test_an_unknown_label_is_named_with_its_row(tmp_path):
    config = LEARNER.configure(SCRATCH, ROWS, tmp_path, tmp_path)
    wrong = pa.table({"said": ["x", "y"], "kind": ["yes", "perhaps"]})
    with pytest.raises(StageFailed, match=r"'kind' says 'perhaps' in row 1 .*no, yes"):
        LEARNER.encode(config, tmp_path, wrong)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "cnn"}, r"train\.network is not valid\. kind: "),
        ({"kind": "rnn", "vocabulary": 60, "sizes": {"heads": 2}}, r"train\.network\.sizes is not valid\. heads: "),
        ({"kind": "transformer", "vocabulary": 60, "max_tokens": 9, "sizes": {"positions": 8}}, r"more than its 8"),
        ({"kind": "pretrained", "sizes": {"width": 8}}, r"its own sizes"),
        ({"kind": "pretrained", "max_tokens": 513}, r"513 is more than its 512 positions"),
    ],
)
def test_what_is_wrong_with_the_section_is_said(tmp_path, cache_dir, section, message):
    with pytest.raises(StageFailed, match=message):
        LEARNER.configure(section, ROWS, tmp_path, cache_dir)


def test_a_pretrained_encoder_starts_with_its_weights(tmp_path, cache_dir):
    config = LEARNER.configure({"max_tokens": 16}, ROWS, tmp_path, cache_dir)
    network = LEARNER.build(config).eval()
    before = network.pooled(**LEARNER.encode(config, tmp_path, ROWS).batch([0]).inputs)
    LEARNER.start(network, config, cache_dir)
    texts = pa.table({"said": ["a good film", "a great movie", "the gearbox oil leaks"]})
    with torch.inference_mode():
        vectors = network.pooled(**LEARNER.encode(config, tmp_path, texts).batch([0, 1, 2]).inputs)
    assert before.shape == (1, 384)
    near = torch.nn.functional.cosine_similarity(vectors[:1], vectors[1:])
    assert near[0] > 0.6 > near[1]
