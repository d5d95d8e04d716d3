"""Real models that are made in milliseconds, as ONNX: no training, no torch.

A bag of words with a tokenizer of its own: each word has a weight, a text's logits are -sum and +sum of its words'. A
classifier of pictures that says in which tenth of the columns a picture is brightest. A detector of bright squares. What
hears a word in every tone.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

OPSET = helper.make_opsetid("", 17)
RUNTIME = {"graphs": {"model": "model.onnx"}}
WORDS = {"good": 2.0, "charming": 3.0, "film": 0.1, "bad": -2.0, "dull": -3.0, "the": 0.0, "never": -1.0, "a": 0.0}


def write_model(folder: Path, words: Mapping[str, float] = WORDS, max_tokens: int = 64) -> Path:
    """model.onnx, tokenizer.json, config.json: what the stage ``compressed`` leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, **{word: index for index, word in enumerate(words, 3)}}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = np.array([0.0, 0.0, 0.0, *words.values()], dtype=np.float32)
    table = numpy_helper.from_array(np.stack([-weights, weights], axis=1), "table")  # (V, 2)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),  # (B, T, 2)
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["logits"], keepdims=0),
    ]
    constants = [
        table,
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.array([1], np.int64), "tokens"),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["B", "T"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])]
    graph = helper.make_graph(nodes, "bag_of_words", inputs, outputs, constants)
    _save_graph(folder / "model.onnx", graph)
    config = {"labels": ["rotten", "fresh"], "max_tokens": max_tokens, "files": ["tokenizer.json"], "runtime": RUNTIME}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def _save(folder: Path, nodes: list, constants: list, inputs: list, outputs: list, config: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    _save_graph(folder / "model.onnx", graph)
    (folder / "config.json").write_text(json.dumps({**config, "runtime": RUNTIME}), "utf-8")
    return folder


def _save_graph(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[OPSET], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_classifier(folder: Path) -> Path:
    """(B, 1, 28, 28) uint8 → logits (B, 10): the mean brightness of each tenth of the columns, an eighth of a level each."""
    weights = np.zeros((28 * 28, 10), np.float32)
    for pixel in range(28 * 28):
        weights[pixel, pixel % 28 * 10 // 28] = 1 / (8 * 28 * 2.8)
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["levels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", 1, 28, 28])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 10])]
    config = {"labels": list("0123456789"), "files": [], "input": {"channels": 1, "size": [28, 28]}}
    return _save(folder, nodes, [numpy_helper.from_array(weights, "weights")], inputs, outputs, config)


CELL = 16  # of the detector: a box is as large, and bright cells of this grid are what it finds


def write_detector(folder: Path) -> Path:
    """(B, 3, H, W) uint8 → (B, A, 5): a cell's corners, and (mean brightness - 128) / 8 as its logit."""
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["levels"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("ReduceMean", ["cells"], ["mean"], axes=[1], keepdims=1),  # (B, 1, h, w)
        helper.make_node("Sub", ["mean", "middle"], ["above"]),
        helper.make_node("Div", ["above", "eight"], ["score"]),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "cell"], ["steps"]),
        helper.make_node("CumSum", ["steps", "across"], ["x2"]),
        helper.make_node("CumSum", ["steps", "down"], ["y2"]),
        helper.make_node("Sub", ["x2", "cell"], ["x1"]),
        helper.make_node("Sub", ["y2", "cell"], ["y1"]),
        helper.make_node("Concat", ["x1", "y1", "x2", "y2", "score"], ["together"], axis=1),  # (B, 5, h, w)
        helper.make_node("Reshape", ["together", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["dense"], perm=[0, 2, 1]),
    ]
    numbers = {"middle": 128.0, "eight": 8.0, "zero": 0.0, "cell": float(CELL)}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()]
    constants += [
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in [("across", 3), ("down", 2)]
    ]
    constants.append(numpy_helper.from_array(np.array([0, 5, -1], np.int64), "rows"))
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", 3, "H", "W"])]
    outputs = [helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["B", "A", 5])]
    config = {
        "labels": ["tree"],
        "files": [],
        "input": {"channels": 3, "size": None, "multiple": 32},
        "postprocess": {"score_threshold": 0.5, "iou_threshold": 0.5, "max_detections": 300},
    }
    return _save(folder, nodes, constants, inputs, outputs, config)


TONES = {"press": 400.0, "one": 700.0, "for": 1_100.0, "sales": 1_700.0}  # word → Hz
STATE = 320  # samples: what the speech model hears at a time
_START, _END = 0, 1  # tokens
_SPOKEN = {"tokens": {"start": [_START, _START], "end": _END, "suppress": [], "suppress_first": []}, "max_tokens": 200}
_HEARD = {"rate": 16_000, "tail_s": 0.5, "step_s": 0.5, "least_s": 1.0, "most_s": 30.0}


def write_speech(folder: Path) -> Path:
    """encoder.onnx and decoder.onnx, called as Whisper's are: a word for every stretch that is loud, by its pitch."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"<start>": _START, "<end>": _END, **{f" {word}": index for index, word in enumerate(TONES, 2)}}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<end>"))
    tokenizer.save(str(folder / "tokenizer.json"))
    _save_graph(folder / "encoder.onnx", _listening())
    _save_graph(folder / "decoder.onnx", _saying())
    config = {"kind": "whisper", **_SPOKEN, "tokenizer": "tokenizer.json", "labels": [], "input": _HEARD}
    config |= {"files": ["tokenizer.json"], "inputs": ["audio"]}
    config["runtime"] = {"graphs": {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def _constants(**values: np.ndarray | float | list[int]) -> list[TensorProto]:
    """Lists are int64, numbers float32."""
    return [
        numpy_helper.from_array(np.array(value, np.int64 if isinstance(value, list) else np.float32), name)
        for name, value in values.items()
    ]


def _listening() -> onnx.GraphProto:
    """audio int16 (B, N) → memory (1, 2, B, 1, S, W + 1): in each state which tone is loudest, and of how many loud
    stretches it belongs to which; 0 in silence. The two halves are the same."""
    angle = 2 * np.pi * np.outer(list(TONES.values()), np.arange(STATE)) / _HEARD["rate"]
    waves = np.concatenate([np.cos(angle), np.sin(angle)])[:, None] / (STATE / 2)  # (2W, 1, STATE)
    nodes = [
        helper.make_node("Cast", ["audio"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "full"], ["samples"]),
        helper.make_node("Unsqueeze", ["samples", "second"], ["mono"]),  # (B, 1, N)
        helper.make_node("Conv", ["mono", "waves"], ["parts"], strides=[STATE]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("Split", ["squares", "halves"], ["real", "imaginary"], axis=1),
        helper.make_node("Add", ["real", "imaginary"], ["power"]),  # (B, W, S), of a tone its amplitude squared
        helper.make_node("ArgMax", ["power"], ["which"], axis=1, keepdims=0),
        helper.make_node("OneHot", ["which", "words", "values"], ["tone"], axis=-1),  # (B, S, W)
        helper.make_node("ReduceMax", ["power"], ["strength"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["strength", "faint"], ["above"]),
        helper.make_node("Cast", ["above"], ["loud"], to=TensorProto.FLOAT),  # (B, S)
        helper.make_node("Pad", ["loud", "one_before"], ["longer"]),
        helper.make_node("Slice", ["longer", "from", "to", "second"], ["before"]),
        helper.make_node("Sub", ["loud", "before"], ["change"]),
        helper.make_node("Relu", ["change"], ["begins"]),
        helper.make_node("CumSum", ["begins", "states"], ["begun"]),
        helper.make_node("Mul", ["begun", "loud"], ["stretch"]),
        helper.make_node("Unsqueeze", ["stretch", "third"], ["number"]),
        helper.make_node("Concat", ["tone", "number"], ["heard"], axis=2),
        helper.make_node("Unsqueeze", ["heard", "outer"], ["whole"]),  # (1, 1, B, 1, S, W + 1)
        helper.make_node("Concat", ["whole", "whole"], ["memory"], axis=1),
    ]
    constants = _constants(full=32_768.0, waves=waves, values=np.array([0.0, 1.0]), faint=0.02**2, states=[1])
    constants += _constants(second=[1], third=[2], halves=[len(TONES)] * 2, words=[len(TONES)], outer=[0, 1, 3])
    constants += _constants(one_before=[0, 1, 0, 0], **{"from": [0], "to": [-1]})
    inputs = [helper.make_tensor_value_info("audio", TensorProto.INT16, ["B", "N"])]
    shape = [1, 2, "B", 1, "S", len(TONES) + 1]
    outputs = [helper.make_tensor_value_info("memory", TensorProto.FLOAT, shape)]
    return helper.make_graph(nodes, "encoder", inputs, outputs, constants)


def _saying() -> onnx.GraphProto:
    """token (B,), past, memory → logits (B, V), present, attention (B, 1, S): behind the start token and P others comes
    the tone of stretch P, or the end where there is none."""
    nodes = [
        helper.make_node("Slice", ["memory", "zero", "one", "one"], ["half"]),
        helper.make_node("Squeeze", ["half", "outer"], ["heard"]),  # (B, S, W + 1)
        helper.make_node("Split", ["heard", "sizes"], ["tone", "wide"], axis=2),
        helper.make_node("Squeeze", ["wide", "third"], ["number"]),
        helper.make_node("Shape", ["past"], ["lengths"]),
        helper.make_node("Gather", ["lengths", "five"], ["said"]),  # (1,) tokens before this one
        helper.make_node("Cast", ["said"], ["wanted"], to=TensorProto.FLOAT),
        helper.make_node("Equal", ["number", "wanted"], ["inside"]),
        helper.make_node("Cast", ["inside"], ["mask"], to=TensorProto.FLOAT),  # (B, S)
        helper.make_node("Unsqueeze", ["mask", "one"], ["attention"]),
        helper.make_node("MatMul", ["attention", "tone"], ["counts"]),  # (B, 1, W)
        helper.make_node("Squeeze", ["counts", "one"], ["votes"]),
        helper.make_node("Mul", ["votes", "ten"], ["loud"]),
        helper.make_node("Slice", ["loud", "zero", "one", "one"], ["first"]),  # (B, 1)
        helper.make_node("Mul", ["first", "nothing"], ["none"]),
        helper.make_node("Add", ["none", "five_"], ["end"]),
        helper.make_node("Concat", ["none", "end", "loud"], ["logits"], axis=1),
        helper.make_node("Slice", ["memory", "zero", "one", "five"], ["step"]),
        helper.make_node("Concat", ["past", "step"], ["present"], axis=4),
    ]
    constants = _constants(zero=[0], one=[1], third=[2], five=[4], outer=[0, 1, 3], sizes=[len(TONES), 1])
    constants += _constants(ten=10.0, nothing=0.0, five_=5.0)
    width = len(TONES) + 1

    def cache(name: str, tokens: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, "B", 1, tokens, width])

    token = helper.make_tensor_value_info("token", TensorProto.INT64, ["B"])
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", len(TONES) + 2]),
        cache("present", "Q"),
        helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["B", 1, "S"]),
    ]
    return helper.make_graph(nodes, "decoder", [token, cache("past", "P"), cache("memory", "S")], outputs, constants)
