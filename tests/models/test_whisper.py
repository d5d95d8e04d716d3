"""Whisper's network: what it hears, what its weights are, what it says, and that all of it survives the export."""

import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.compression.export import export
from lepton_platform.compression.session import Session, file_of, runs
from lepton_platform.models.log_mel import LogMel, Spectrum, mel_filters
from lepton_platform.models.pretrained import whisper_tiny_en
from lepton_platform.models.spec_augment import Masks, SpecAugment
from lepton_platform.models.speech_decoding import token_ends
from lepton_platform.models.speech_input import RATE, as_pcm, padded, seconds_of, window
from lepton_platform.models.speech_recogniser import SpeechRecogniser
from lepton_platform.models.time_warping import alignment
from lepton_platform.models.whisper import DecoderGraph, EncoderGraph, Whisper, WhisperSizes
from lepton_platform.models.whisper_learner import NOTHING
from lepton_platform.models.whisper_weights import _from_hub, load_whisper, read_arrays, whisper_sizes
from lepton_platform.stage import StageFailed
from lepton_platform.training.predict import torch_runs

SMALL = WhisperSizes(
    vocabulary=40, width=16, heads=2, encoder_layers=1, decoder_layers=2, hidden=32, states=150, positions=24,
    alignment_heads=((1, 0),),
)  # fmt: skip
LEARNER = SpeechRecogniser(
    content="audio",
    target="text",
    decode=lambda data: np.frombuffer(data, np.int16).astype(np.float32) / 32_768,
    written=str,
)


@pytest.fixture(scope="module")
def weights(cache_dir: Path) -> Path:
    return whisper_tiny_en(cache_dir)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speech")


@pytest.fixture(scope="module")
def config(cache_dir: Path, folder: Path, weights: Path) -> dict:
    return LEARNER.configure({"least_s": 30.0}, pa.table({"audio": [], "text": []}), folder, cache_dir)


@pytest.fixture(scope="module")
def network(config: dict, cache_dir: Path) -> Whisper:
    made = LEARNER.build(config)
    LEARNER.start(made, config, cache_dir)
    return made.eval()


def noise(seconds: float, seed: int, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return as_pcm((level * rng.standard_normal(int(seconds * RATE))).astype(np.float32))


def test_what_it_hears_is_what_whisper_was_trained_to_hear():
    from transformers import WhisperFeatureExtractor

    for seconds, seed in ((1.0, 0), (2.35, 1)):
        pcm = noise(seconds, seed)
        theirs = WhisperFeatureExtractor(feature_size=80)(
            pcm / 32_768.0, sampling_rate=RATE, padding=False, return_tensors="np", do_normalize=False
        )["input_features"][0]
        ours = LogMel()(torch.from_numpy(pcm)[None])[0].numpy()
        frames = min(ours.shape[1], theirs.shape[1])
        assert frames == len(pcm) // 160
        assert np.abs(ours[:, :frames] - theirs[:, :frames]).max() < 2e-3


def test_what_is_quiet_is_heard_in_mixed_precision_too():
    pcm = torch.from_numpy(noise(0.5, 11, level=0.01) + (8_000 * np.sin(np.arange(8_000) * 0.5)).astype(np.int16))[None]
    wanted = LogMel()(pcm)
    with torch.autocast("cpu", torch.bfloat16):
        found = LogMel()(pcm)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)


def test_the_filters_cover_the_scale_and_the_spectrum_is_a_fourier_transform():
    filters = mel_filters(80, 400)
    assert filters.shape == (80, 201) and (filters >= 0).all() and (filters.max(axis=1) > 0).all()
    pcm = noise(0.5, 3)
    power = Spectrum(320, 160)(torch.from_numpy(pcm)[None])[0].numpy()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 320)
    frame = pcm[160 * 20 - 160 : 160 * 20 + 160] / 32_768.0
    assert power[:, 20] == pytest.approx(np.abs(np.fft.rfft(frame * hann)) ** 2, rel=1e-3, abs=1e-5)


def test_the_network_is_transformers_own(weights: Path, network: Whisper):
    """The same arrays in the reference implementation: the same logits."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = whisper_sizes(weights, 0.0)
    theirs = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=sizes.vocabulary, d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6,
            decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536, num_mel_bins=80,
        )
    ).eval()  # fmt: skip
    ours = dict(network.named_parameters())
    renamed = {name: ours[mine].detach() for mine, name in hub_names(network).items()}
    missing = theirs.load_state_dict(renamed, strict=False).missing_keys
    assert set(missing) <= {"model.encoder.embed_positions.weight", "proj_out.weight"}
    theirs.proj_out.weight = theirs.model.decoder.embed_tokens.weight
    theirs.model.encoder.embed_positions.weight.data = network.encoder.positions.clone()
    pcm = torch.from_numpy(noise(30.0, 4))[None]
    tokens = torch.tensor([[50257, 50362, 770, 318]])
    with torch.inference_mode():
        wanted = theirs(input_features=network.encoder.spectra(pcm), decoder_input_ids=tokens).logits
        assert network(pcm, tokens) == pytest.approx(wanted, abs=2e-3)


def hub_names(network: Whisper) -> dict[str, str]:
    """Our names of its weights → the hub's."""
    asked: list[str] = []

    class Noting(dict):
        def __getitem__(self, name: str):
            asked.append(name)
            return torch.zeros(1)

    ours = list(_from_hub(Noting(), network))
    return dict(zip(ours, asked, strict=True))


def test_token_by_token_it_says_what_it_says_at_once():
    torch.manual_seed(0)
    network = Whisper(SMALL).eval()
    audio, tokens = torch.from_numpy(np.stack([noise(1.0, 5), noise(1.0, 6)])), torch.randint(0, 40, (2, 7))
    with torch.inference_mode():
        wanted = network(audio, tokens)
        memory, step = EncoderGraph(network)(audio), DecoderGraph(network)
        past = torch.zeros(2, 2, 2, 2, 0, 8)
        for place in range(7):
            logits, past, attention = step(tokens[:, place], past, memory)
            assert logits == pytest.approx(wanted[:, place], abs=1e-5)
        assert attention.shape == (2, 1, 50) and attention.sum(2) == pytest.approx(torch.ones(2, 1), abs=1e-5)


def test_the_exported_graphs_answer_as_the_network_does(tmp_path: Path, config: dict, folder: Path):
    torch.manual_seed(1)
    small = {**config, "sizes": SMALL.model_dump(mode="json"), "max_tokens": 12}
    small["tokens"] = {"start": [1, 2], "end": 0, "suppress": [3], "suppress_first": [4]}
    small["input"] = {**config["input"], "least_s": 1.0}
    network = LEARNER.build(small).eval()
    graphs = LEARNER.graphs(network, small)
    for name, graph in graphs.items():
        export(graph, tmp_path / file_of(name))
    session = runs({name: Session(tmp_path / file_of(name)) for name in graphs})
    for batch in ([noise(0.4, 7)], [noise(2.0, 8), noise(1.1, 9), noise(1.7, 10)]):
        inputs = {"audio": padded(batch, small)}
        with torch.inference_mode():
            wanted = LEARNER.answer(torch_runs(graphs), inputs, small, folder)
        found = LEARNER.answer(session, inputs, small, folder)
        assert [one.text for one in found] == [one.text for one in wanted]
        assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-4)
        assert [one.seconds for one in found] == pytest.approx([len(one) / RATE for one in batch])


def test_a_batch_teaches_every_token_and_nothing_behind_the_last(config: dict, folder: Path):
    rows = pa.table({"audio": [noise(0.5, 1).tobytes(), noise(1.5, 2).tobytes()], "text": ["hello there", "yes"]})
    samples = LEARNER.encode(config, folder, rows)
    batch = samples.batch([1, 0])
    start, end = config["tokens"]["start"], config["tokens"]["end"]
    tokens, following = batch.inputs["tokens"].numpy(), batch.targets["next"].numpy()
    assert tokens[:, : len(start)].tolist() == [start, start]
    for row in range(2):
        told = following[row][following[row] != NOTHING]
        assert told[-1] == end and (told[:-1] == tokens[row, len(start) : len(start) + len(told) - 1]).all()
    assert (following[0] != NOTHING).sum() == 2 and (following[1] != NOTHING).sum() == 3
    outputs = torch.zeros(2, tokens.shape[1], 51_864)
    outputs[0, len(start) - 1, int(following[0, len(start) - 1])] = 50.0
    measures = LEARNER.measures(outputs, batch)
    assert measures["accuracy"][0] == 0.5 and measures["loss"].shape == (2,)


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=4), st.sampled_from([0.25, 0.5, 2.0]))
@settings(max_examples=50, deadline=None)
def test_a_window_holds_its_recording_and_silence(lengths: list[int], step: float):
    config = {"input": {"tail_s": 0.5, "step_s": step, "least_s": 1.0}}
    recordings = [np.full(length, 7, np.int16) for length in lengths]
    for length in lengths:
        size = window(length, config)
        assert size >= length + 8_000 and size >= RATE and size % int(step * RATE) == 0
    together = padded(recordings, config)
    assert together.shape == (len(lengths), max(window(n, config) for n in lengths))
    assert seconds_of(together) == pytest.approx([n / RATE for n in lengths])


def test_masks_hide_only_while_training():
    masks = SpecAugment(Masks(time_masks=2, time_share=0.2, band_masks=1, bands=10))
    x = torch.arange(2 * 20 * 50, dtype=torch.float32).view(2, 20, 50) + 1
    assert torch.equal(masks.eval()(x), x)
    torch.manual_seed(3)
    hidden = masks.train()(x) != x
    assert 0 < hidden.float().mean() < 0.8
    assert not torch.equal(hidden[0], hidden[1]), "every row has its own"


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_the_way_through_a_matrix_is_the_cheapest(rows: int, columns: int, seed: int):
    cost = np.random.default_rng(seed).random((rows, columns))
    i, j = alignment(cost)
    assert (i[0], j[0], i[-1], j[-1]) == (0, 0, rows - 1, columns - 1)
    steps = set(zip(np.diff(i).tolist(), np.diff(j).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    best = np.full((rows, columns), np.inf)
    best[0, 0] = cost[0, 0]
    for a in range(rows):
        for b in range(columns):
            before = [best[a - 1, b - 1] if a and b else np.inf, best[a - 1, b] if a else np.inf]
            before.append(best[a, b - 1] if b else np.inf)
            if a or b:
                best[a, b] = cost[a, b] + min(before)
    assert cost[i, j].sum() == pytest.approx(best[-1, -1])


def test_words_end_where_they_were_looked_at():
    attention = np.full((3, 2, 100), 1e-3)
    for token, (begin, end) in enumerate(((0, 30), (30, 50), (50, 80))):
        attention[token, :, begin:end] = 1.0
    assert token_ends(attention, 1.6) == pytest.approx([0.6, 1.0, 1.6], abs=0.08)


def test_a_file_of_arrays_that_breaks_off_is_told(tmp_path: Path, weights: Path):
    whole = (weights / "model.bin").read_bytes()
    for name, content in (
        ("cut.bin", whole[:5_000]),
        ("other.bin", struct.pack("<I", 6) + b"\x05\x00BERT\x00"),
        ("empty.bin", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StageFailed, match="cannot be read as a CTranslate2 model"):
            read_arrays(tmp_path / name)


def test_weights_as_the_hub_has_them_are_the_same_network(tmp_path: Path):
    from safetensors.torch import save_file

    torch.manual_seed(2)
    network = Whisper(SMALL)
    ours = dict(network.named_parameters())
    stored = {theirs: ours[name].detach().clone() for name, theirs in hub_names(network).items()}
    assert len(stored) == len(ours) and "model.encoder.layers.0.self_attn.q_proj.weight" in stored
    save_file(stored, tmp_path / "model.safetensors")
    told = {
        "model_type": "whisper", "vocab_size": 40, "d_model": 16, "decoder_attention_heads": 2, "encoder_layers": 1,
        "decoder_layers": 2, "decoder_ffn_dim": 32, "num_mel_bins": 80, "max_source_positions": 150,
        "max_target_positions": 24,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(told))
    other = Whisper(whisper_sizes(tmp_path, 0.0))
    load_whisper(other, tmp_path)
    assert all(torch.equal(weight, ours[name]) for name, weight in other.named_parameters())
    (tmp_path / "config.json").write_text(json.dumps({**told, "model_type": "bert"}))
    with pytest.raises(StageFailed, match="of type 'bert', not 'whisper'"):
        whisper_sizes(tmp_path, 0.0)
