"""An encoder of the BERT family as an ONNX graph whose weights stay where they are: in ``model.safetensors``.

A safetensors file is a header and the tensors' bytes, which is what ONNX calls external data: the graph has names, shapes
and places, a few kilobytes, and ONNX Runtime maps the file. To load it takes no torch, and no copy. The network is Devlin
et al., "BERT" (2019), with the norm after each half of a layer.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import onnx

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENS, MASK, STATES = "tokens", "mask", "states"
OPSET, IR = 20, 9  # the first with Gelu
HIDDEN = -1e9  # added to the score of a token that is padding


def fits(folder: Path) -> bool:
    """Is the network of ``folder`` one that this graph, and the Lepton Transformer, can be?"""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return (
        config.get("model_type") == "bert"
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
    )


def bert_graph(folder: Path) -> "onnx.ModelProto":
    """Token ids and mask (B, T) → states (B, T, D). ``StageFailed`` where a weight is missing or not of 32 bits."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    made = _Graph(folder / WEIGHTS, config["layer_norm_eps"])
    width, heads = config["hidden_size"], config["num_attention_heads"]
    states = made.embedded()
    for layer in range(config["num_hidden_layers"]):
        states = made.layer(states, f"encoder.layer.{layer}.", heads, width // heads)
    made.add("Reshape", [states, "shape_BTD"], STATES)
    return made.model(width)


class _Graph:
    """Nodes and weights as they come; a node's output has its name. States are (N, D), N = B × T."""

    def __init__(self, weights: Path, eps: float) -> None:
        from onnx import helper

        self.helper, self.weights, self.eps = helper, weights, eps
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        with weights.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            self.header: dict[str, Any] = json.loads(file.read(size))
        self.begin = 8 + size
        self.prefix = "bert." if "bert.embeddings.word_embeddings.weight" in self.header else ""

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, values: Sequence[Any], kind: str = "INT64") -> str:
        import onnx

        if name not in self.tensors:
            code = getattr(onnx.TensorProto, kind)
            self.tensors[name] = self.helper.make_tensor(name, code, [len(values)], values)
        return name

    def weight(self, name: str) -> str:
        """A tensor of the file, where it lies."""
        import onnx

        told = self.header.get(self.prefix + name)
        if told is None or told["dtype"] != "F32":
            found = "is missing" if told is None else f"is of type {told['dtype']}, not F32"
            raise StageFailed(f"{self.weights}: the weight {name!r} {found}: it is not a BERT encoder in float32.")
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=told["shape"])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        start, end = told["data_offsets"]
        place = {"location": self.weights.name, "offset": self.begin + start, "length": end - start}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self.tensors[name] = tensor
        return name

    def embedded(self) -> str:
        """Words, positions and the only segment, summed and normed; beside them what the layers need of sizes and mask."""
        add, constant = self.add, self.constant
        add("Shape", [TOKENS], "shape_BT")
        add("Slice", ["shape_BT", constant("one", [1]), constant("two", [2]), constant("zero", [0])], "length_T")
        add("Concat", ["shape_BT", constant("rest", [-1])], "shape_BTD", axis=0)
        add("Gather", [self.weight("embeddings.word_embeddings.weight"), TOKENS], "words")
        all_positions = self.weight("embeddings.position_embeddings.weight")
        add("Slice", [all_positions, "zero", "length_T", "zero"], "positions")
        add("Gather", [self.weight("embeddings.token_type_embeddings.weight"), "zero"], "segment")
        add("Add", ["positions", "segment"], "places")
        add("Add", ["words", "places"], "summed")
        add("Cast", [MASK], "mask_float", to=1)
        add("Sub", [constant("unity", [1.0], "FLOAT"), "mask_float"], "padding")
        add("Mul", ["padding", constant("hidden", [HIDDEN], "FLOAT")], "bias_BT")
        add("Unsqueeze", ["bias_BT", constant("axes", [1, 2])], "bias")  # (B, 1, 1, T)
        normed = self.norm("summed", "embeddings.LayerNorm", "embedded")
        return add("Flatten", [normed], "embedded_ND", axis=2)

    def layer(self, x: str, at: str, heads: int, size: int) -> str:
        """Attention and two dense layers, each added to what came in and normed."""
        add, constant = self.add, self.constant
        split = f"{at}split"
        add("Concat", ["shape_BT", constant("heads", [heads, size])], split, axis=0)
        for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            flat = self.dense(x, f"{at}attention.self.{name}")
            add("Reshape", [flat, split], f"{flat}_BTHd")
            add("Transpose", [f"{flat}_BTHd"], f"{at}{name}", perm=order)
        add("MatMul", [f"{at}query", f"{at}key"], f"{at}products")
        add("Mul", [f"{at}products", constant("scale", [size**-0.5], "FLOAT")], f"{at}scaled")
        add("Add", [f"{at}scaled", "bias"], f"{at}scores")
        add("Softmax", [f"{at}scores"], f"{at}shares", axis=-1)
        add("MatMul", [f"{at}shares", f"{at}value"], f"{at}seen_BHTd")
        add("Transpose", [f"{at}seen_BHTd"], f"{at}seen_BTHd", perm=[0, 2, 1, 3])
        add("Reshape", [f"{at}seen_BTHd", constant("rows", [-1, heads * size])], f"{at}seen")
        out = self.dense(f"{at}seen", f"{at}attention.output.dense")
        x = self.norm(add("Add", [out, x], f"{at}attended"), f"{at}attention.output.LayerNorm", f"{at}middle")
        wide = add("Gelu", [self.dense(x, f"{at}intermediate.dense")], f"{at}wide")
        narrow = self.dense(wide, f"{at}output.dense")
        return self.norm(add("Add", [narrow, x], f"{at}fed"), f"{at}output.LayerNorm", f"{at}out")

    def dense(self, x: str, name: str) -> str:
        """(N, in) → (N, out)."""
        return self.add("Gemm", [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")], f"{name}.y", transB=1)

    def norm(self, x: str, name: str, output: str) -> str:
        inputs = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.add("LayerNormalization", inputs, output, axis=-1, epsilon=self.eps)

    def model(self, width: int) -> "onnx.ModelProto":
        import onnx

        def value(name: str, kind: int, *shape: str | int) -> Any:
            return self.helper.make_tensor_value_info(name, kind, shape)

        whole = onnx.TensorProto.INT64
        inputs = [value(name, whole, "B", "T") for name in (TOKENS, MASK)]
        outputs = [value(STATES, onnx.TensorProto.FLOAT, "B", "T", width)]
        graph = self.helper.make_graph(self.nodes, "bert", inputs, outputs, list(self.tensors.values()))
        return self.helper.make_model(graph, opset_imports=[self.helper.make_opsetid("", OPSET)], ir_version=IR)
