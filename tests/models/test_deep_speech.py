"""The speech RNN: it hears a recording and not what lies behind it, it learns, and its export says the same."""

import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch

from lepton_platform.compression.export import export
from lepton_platform.compression.quantise import quantise_dynamic
from lepton_platform.compression.session import Session, runs
from lepton_platform.data import audio
from lepton_platform.data.transcripts import speakable
from lepton_platform.models.deep_speech import FREQUENCIES, DeepSpeech, DeepSpeechSizes, LogSpectrum, steps_of
from lepton_platform.models.graph import MODEL
from lepton_platform.models.speech_answer import answer
from lepton_platform.models.speech_recogniser import SpeechRecogniser
from lepton_platform.stage import StageFailed
from lepton_platform.training.predict import as_arrays, torch_runs
from tests.data.sounds import saved, speechlike

FEW = {"channels": [4, 4], "kernels": [[11, 5], [11, 5]], "strides": [[2, 2], [2, 2]], "hidden": 12, "layers": 1}
SMALL = {"kind": "deep_speech", "sizes": {**FEW, "dropout": 0.0}}
TEXTS = ["yes", "No, thanks", "over  2 there"]


def spoken(text: str) -> str:
    """Letters, and figures one by one."""
    figures = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    said = re.sub(r"\d", lambda figure: f" {figures[int(figure[0])]} ", text.lower())
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", said))


LEARNER = SpeechRecogniser("audio", "text", audio.decode, written=str.strip, normalise=spoken)


def recordings(seconds: tuple[float, ...] = (0.6, 1.1, 2.3), texts: list[str] | None = None) -> pa.Table:
    files = [saved(speechlike(length, seed)) for seed, length in enumerate(seconds)]
    return pa.table({"audio": files, "text": texts or TEXTS[: len(files)]})


ROWS = recordings()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads of a shared machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def config(folder):
    return LEARNER.configure({**SMALL, "decoder": "language_model", "beam": 20}, ROWS, folder, folder)


@pytest.fixture(scope="module")
def network(config) -> DeepSpeech:
    torch.manual_seed(0)
    return LEARNER.build(config).eval()  # pyright: ignore[reportReturnType]


def padded(samples: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(samples, (0, length - samples.shape[1]))


@torch.inference_mode()
def test_a_spectrum_is_of_the_recording_alone():
    torch.manual_seed(1)
    sound = (torch.randn(1, 5_001) * 500).to(torch.int16)
    sound[0, -1] = 1
    alone, frames = LogSpectrum()(sound)
    assert frames.tolist() == [32] and alone.shape == (1, FREQUENCIES, 32)
    assert alone.mean().abs() < 1e-4 and abs(alone.std() - 1) < 1e-2
    for length in (5_002, 5_120, 5_121, 9_999):
        found, frames = LogSpectrum()(padded(sound, length))
        assert frames.tolist() == [32]
        assert torch.allclose(found[:, :, :32], alone, atol=1e-4) and not found[:, :, 32:].any()
    louder, _ = LogSpectrum()(sound * 8)
    assert torch.allclose(louder, alone, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        halved, _ = LogSpectrum()(sound)
    assert torch.equal(halved, alone)  # sixteen bits are for what is learnt


@torch.inference_mode()
@pytest.mark.parametrize("strides", [((2, 2), (2, 1)), ((2, 2), (2, 2)), ((3, 1), (2, 3))])
def test_zeros_behind_a_recording_change_nothing(strides):
    torch.manual_seed(2)
    given = {"channels": (3, 5), "kernels": ((11, 11), (7, 5)), "strides": strides, "hidden": 8, "layers": 2}
    sizes = DeepSpeechSizes.model_validate(given)
    network = DeepSpeech(sizes).eval()
    for samples in (1, 159, 160, 161, 4_000, 7_777):
        sound = (torch.randn(1, samples) * 3_000).to(torch.int16)
        sound[0, -1] = 7
        alone, steps = network(sound)
        assert steps.tolist() == [steps_of(samples, sizes)] and alone.shape == (1, steps[0], 29)
        other = (torch.randn(1, 8_000) * 3_000).to(torch.int16)
        together, both = network(torch.cat([padded(sound, 8_000), other]))
        assert both[0] == steps[0]
        assert torch.allclose(together[0, : steps[0]], alone[0], atol=1e-4)


def test_a_rows_loss_is_its_own(config, folder, network):
    samples = LEARNER.encode(config, folder, ROWS, training=True)
    for smoothing in (0.0, 0.1):

        def losses(rows, smoothing=smoothing):
            batch = samples.batch(rows)
            with torch.inference_mode():
                return LEARNER.losses(network(**batch.inputs), batch, smoothing)

        together = losses([0, 1, 2])
        assert together.shape == (3,) and together.dtype == torch.float32
        assert torch.allclose(together, torch.cat([losses([n]) for n in range(3)]), rtol=1e-4)
    measured = LEARNER.measures(network(**samples.batch([0, 2]).inputs), samples.batch([0, 2]))
    assert {name: value.shape for name, value in measured.items()} == {"loss": (2,), "accuracy": (2,)}


def test_the_loss_is_torchs_of_the_characters(config, folder):
    batch = LEARNER.encode(config, folder, ROWS).batch([1])
    alphabet = config["alphabet"]
    assert [alphabet[n] for n in batch.targets["characters"][0]] == list("no thanks")
    log_probs = torch.randn(1, 30, len(alphabet)).log_softmax(2)
    found = LEARNER.losses((log_probs, torch.tensor([25])), batch, 0.0)
    steps, length = torch.tensor([25]), torch.tensor([9])
    wanted = torch.nn.functional.ctc_loss(
        log_probs[0, :25], batch.targets["characters"], steps, length, reduction="sum"
    )
    assert found.item() == pytest.approx(wanted.item() / 9, rel=1e-5)
    assert LEARNER.losses((log_probs, torch.tensor([3])), batch, 0.0).item() == 0  # too short: teaches nothing


def test_the_alphabet_is_that_of_the_texts(tmp_path):
    learner = SpeechRecogniser("audio", "text", audio.decode, written=str.strip)
    config = learner.configure(SMALL, recordings(texts=["Año 2", "b", "c"]), tmp_path, tmp_path)
    assert "".join(config["alphabet"]) == " '2abcdefghijklmnopqrstuvwxyzñ" and config["alphabet"][0] == ""
    assert config["sizes"]["classes"] == 31 and config["files"] == [] and config["step_s"] == 0.04
    batch = learner.encode(config, tmp_path, recordings(texts=["a€b", "", "c"])).batch([0, 1])
    assert batch.targets["lengths"].tolist() == [2, 0]  # nobody can say what was never learnt
    assert not learner.encode(config, tmp_path, ROWS.drop_columns(["text"])).batch([0]).targets


@pytest.mark.parametrize("decoder", ["greedy", "beam", "language_model"])
def test_answers_are_transcripts(config, folder, network, decoder):
    samples = LEARNER.encode(config, folder, ROWS)
    chosen = {**config, "decoder": {**config["decoder"], "kind": decoder}}
    with torch.inference_mode():
        run = torch_runs(LEARNER.graphs(network, config))
        found = LEARNER.answer(run, as_arrays(samples.batch([2, 0]).inputs), chosen, folder)
        silent = LEARNER.answer(run, {"audio": np.zeros((1, 8_000), dtype=np.int16)}, chosen, folder)
    assert [round(one.seconds, 2) for one in found] == [2.3, 0.6]
    assert all(0 <= one.score <= 1 and " ".join(word.text for word in one.words) == one.text for one in found)
    assert silent[0].text == "" and silent[0].seconds == 0
    if decoder == "language_model":
        assert set(found[0].text.split()) <= {"yes", "no", "thanks", "over", "two", "there"}
        assert config["files"] == ["words.arpa"] and (folder / "words.arpa").is_file()


@pytest.fixture(scope="module")
def exported(config, folder, network):
    graphs = LEARNER.graphs(network, config)
    for name in ("one.onnx", "again.onnx"):
        export(graphs[MODEL], folder / name)
    return folder / "one.onnx"


def test_the_same_network_the_same_bytes(exported):
    assert exported.read_bytes() == (exported.parent / "again.onnx").read_bytes()


def test_the_exported_graph_computes_what_the_network_does(network, exported):
    import onnx

    graph = onnx.load(exported).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes["audio"][0] == shapes["log_probs"][0] == shapes["steps"][0] == "rows"
    assert isinstance(shapes["audio"][1], str) and isinstance(shapes["log_probs"][1], str)  # as many as there are
    session = Session(exported)
    rng = np.random.default_rng(0)
    for rows, samples in [(1, 320), (1, 16_000), (5, 24_000), (2, 79_999)]:  # none was an example
        sound = (rng.standard_normal((rows, samples)) * 3_000).astype(np.int16)
        sound[0, samples // 2 :] = 0
        with torch.inference_mode():
            wanted, steps = network(torch.from_numpy(sound))
        found, counted = session.run({"audio": sound})
        assert found.shape == wanted.shape and counted.tolist() == steps.tolist()
        assert np.abs(found - wanted.numpy()).max() < 1e-4


def test_it_says_the_same_alone_and_in_company_when_exported(config, folder, exported):
    run = runs({MODEL: Session(exported)})
    whole = LEARNER.encode(config, folder, ROWS).batch([0, 1, 2]).inputs["audio"].numpy()
    together = answer(run, whole, config, folder)
    for row, length in enumerate((9_600, 17_600, 36_800)):
        [alone] = answer(run, whole[row : row + 1, :length], config, folder)
        assert alone.text == together[row].text
        assert [(word.start_s, word.end_s) for word in alone.words] == [
            (word.start_s, word.end_s) for word in together[row].words
        ]


def test_lstms_are_in_eight_bits(exported, tmp_path):
    assert quantise_dynamic(exported, tmp_path / "q.onnx", per_channel=True, reduce_range=True, keep_float=[]) == 5
    sound = (np.random.default_rng(1).standard_normal((1, 16_000)) * 3_000).astype(np.int16)
    wanted, found = (Session(path).run({"audio": sound})[0] for path in (exported, tmp_path / "q.onnx"))
    assert 0 < np.abs(found - wanted).max() < 0.2


def test_config_alone_rebuilds_the_network(config, network):
    again = LEARNER.build(config).eval()
    again.load_state_dict(network.state_dict())
    sound = torch.randint(-999, 999, (2, 4_000), dtype=torch.int16)
    with torch.inference_mode():
        assert torch.equal(network(sound)[0], again(sound)[0])
    depths = LEARNER.depths(network)
    assert set(depths) == {name for name, _ in network.named_parameters()}
    assert depths["head.bias"] == 0 and depths["layers.0.forwards.weight_hh_l0"] == depths["norms.0.weight"] == 1
    assert depths["convolutions.0.near.weight"] == max(depths.values()) == 3


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"kind": "deaf"}, r"train\.network\.kind: 'deaf' is no kind of network. There are: whisper, deep_speech"),
        ({"kind": ["deep_speech"]}, "is no kind of network"),
        ({**SMALL, "weights": "tiny"}, r"train\.network is not valid.*decoder"),
        ({**SMALL, "lm_weight": 1.0}, "greedy does not use lm_weight"),
        ({**SMALL, "sizes": {"kernels": [[4, 3], [3, 3]]}}, r"train\.network\.sizes is not valid.*odd"),
        ({**SMALL, "sizes": {"channels": [8]}}, "equally many"),
        ({**SMALL, "masks": {"times": 1}}, r"train\.network\.masks is not valid"),
        ({"decoder": "greedy"}, r"train\.network is not valid.*decoder.*weights"),
    ],
)
def test_wrong_parameters_are_told(tmp_path, section, said):
    with pytest.raises(StageFailed, match=said):
        LEARNER.configure(section, ROWS, tmp_path, tmp_path)


def test_texts_too_long_for_their_recordings_are_told(config, folder):
    rows = recordings(texts=["yes", "what nobody could ever say in a second " * 3, "no"])
    with pytest.raises(StageFailed, match=r"1 of 3 training recordings .* row 1 has 28 steps for \d+ characters"):
        LEARNER.encode(config, folder, rows, training=True)
    assert len(LEARNER.encode(config, folder, rows).sizes) == 3  # they are judged by them all the same
    with pytest.raises(StageFailed, match="No language model"):
        LEARNER.configure(
            {**SMALL, "decoder": "language_model"}, recordings(texts=["", "?", "!"]), folder / "..", folder
        )


@pytest.fixture(scope="module")
def prompts(cache_dir) -> pa.Table:
    """Ten short prompts of at least two words."""
    from lepton_platform.tasks.prompts.source import SourceParams, records

    kept = (cache_dir / "packages/apt").glob("asterisk-core-sounds-en-g722-*/archive.deb")
    if shutil.which("apt-get") is None and not any(kept):
        pytest.skip("the prompts are Debian's: neither is apt-get here, nor were they fetched before")
    found = [row for row in records(SourceParams.model_validate({}), cache_dir) if row["audio"] and row["text"]]
    worded = [row for row in found if speakable(row["text"]) is None and len(spoken(row["text"]).split()) > 1]
    shortest = sorted(worded, key=lambda row: (audio.duration_of(row["audio"]), row["file"]))[:10]
    return pa.table({name: [row[name] for row in shortest] for name in ("audio", "text")})


@pytest.mark.slow
def test_it_learns_ten_prompts_by_heart(prompts, tmp_path):
    sizes = {"channels": [8, 8], "kernels": [[21, 11], [11, 5]], "strides": [[2, 2], [2, 2]], "hidden": 64, "layers": 1}
    config = LEARNER.configure({"kind": "deep_speech", "sizes": sizes}, prompts, tmp_path, tmp_path)
    torch.manual_seed(0)
    network, samples = LEARNER.build(config), LEARNER.encode(config, tmp_path, prompts, training=True)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    batch = samples.batch(range(len(prompts)))
    for _ in range(120):
        LEARNER.losses(network(**batch.inputs), batch, 0.0).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        run = torch_runs(LEARNER.graphs(network.eval(), config))
        found = LEARNER.answer(run, as_arrays(batch.inputs), config, tmp_path)
    assert [one.text for one in found] == [spoken(text) for text in prompts["text"].to_pylist()]  # no word is wrong
    assert all(one.score > 0.5 for one in found)
    for one in found:
        times = [time for word in one.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times) and 0 <= times[0] < times[-1] <= one.seconds
