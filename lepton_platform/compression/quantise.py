"""An ONNX graph in eight bits, by ONNX Runtime's quantiser.

*Dynamic*: weights are stored in eight bits, activations are brought to them on the way by the range of the batch at hand.
For products of matrices; no rows needed. *Static*: the ranges of activations are measured once, on calibration rows, and
written into the graph between operators (QDQ), so that chains of convolutions stay in integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_platform.compression.export import forget_where_it_came_from, write
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray
    from onnxruntime.quantization import CalibrationDataReader

    Feeds = Mapping[str, NDArray]  # a network's inputs by name

# "Attention" is not among them: the quantiser takes it for another operator of that name.
OPERATORS = ("MatMul", "Gemm", "Gather", "LSTM")

# Static: products, and what lies between two of them. What follows the last product stays float: it is made of pixels
# and places, for which 256 steps are too few.
PRODUCTS = ("Conv", "MatMul", "Gemm")
BETWEEN = ("Add", "Relu", "MaxPool", "Concat", "Resize", "AveragePool", "GlobalAveragePool")

# The quantiser's preparation is ONNX Runtime's basic optimisation, which ``export`` has done; without this mark
# it asks for it with two warnings on stderr.
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def quantise_dynamic(
    source: Path,
    target: Path,
    *,
    per_channel: bool,
    reduce_range: bool,
    keep_float: Sequence[str],
    unsigned: bool = False,
) -> int:
    """Write ``source`` with int8 weights to ``target``; returns how many weights were quantised.

    ``per_channel``: a scale a column and not a matrix. ``reduce_range``: 7 bits, which cannot overflow the 16-bit
    sums of CPUs without VNNI, so that the answers are the same on every CPU; ``unsigned``: all 8, in a form for which
    the kernels take wider sums, which is slower. ``keep_float``: patterns of the names of operators, or of their
    weights, that are left as they are.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source)
    kept = _kept_float(graph, OPERATORS, keep_float)
    onnx.helper.set_model_props(graph, _PREPARED)
    quantize_dynamic(
        graph,
        target,
        op_types_to_quantize=list(OPERATORS),
        nodes_to_exclude=kept,
        per_channel=per_channel,
        reduce_range=reduce_range and not unsigned,
        weight_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
    )
    return _clean(target)


def quantise_static(
    source: Path,
    target: Path,
    calibration: Iterable[Feeds],
    *,
    per_channel: bool,
    reduce_range: bool,
    keep_float: Sequence[str],
) -> int:
    """As ``quantise_dynamic``; the ranges of activations are the lowest and the highest seen in ``calibration``."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = onnx.load(source)
    kept = set(_kept_float(graph, PRODUCTS, keep_float)) | _after_products(graph)
    onnx.helper.set_model_props(graph, _PREPARED)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / source.name  # the quantiser measures ranges with a copy of the graph, beside it
        onnx.save(graph, prepared)
        quantize_static(
            prepared,
            target,
            _reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*PRODUCTS, *BETWEEN],
            nodes_to_exclude=sorted(kept),
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    return _clean(target)


def _kept_float(graph: onnx.ModelProto, operators: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names of the operators that the patterns mean; a pattern that means none is an error."""
    weights = {weight.name for weight in graph.graph.initializer}
    names = {
        node.name: (node.name, *(name for name in node.input if name in weights))
        for node in graph.graph.node
        if node.op_type in operators
    }
    unused = [p for p in patterns if not any(fnmatchcase(name, p) for some in names.values() for name in some)]
    if unused:
        told = ", ".join(f"{name} ({some[1]})" if len(some) > 1 else name for name, some in names.items())
        raise StageFailed(
            f"compress.keep_float: {', '.join(unused)} fits no operator of the graph and no weight. There are: {told}."
        )
    return [n for n, some in names.items() if any(fnmatchcase(name, p) for name in some for p in patterns)]


def _after_products(graph: onnx.ModelProto) -> set[str]:
    """The names of operators behind which no product comes."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    leads: dict[str, bool] = {}
    for node in reversed(graph.graph.node):  # a graph is in the order of its computation
        leads[node.name] = any(
            reader.op_type in PRODUCTS or leads[reader.name] for name in node.output for reader in readers.get(name, [])
        )
    return {node.name for node in graph.graph.node if node.op_type in BETWEEN and not leads[node.name]}


def _reader(calibration: Iterable[Feeds]) -> CalibrationDataReader:
    """The rows as the quantiser asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows: Iterator[Feeds] = iter(calibration)

        def get_next(self) -> dict | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            found = next(self.rows, None)
            return None if found is None else dict(found)

    return Reader()


def _clean(target: Path) -> int:
    """Take out what says nothing of the network; returns how many weights are in eight bits."""
    import onnx

    model = onnx.load(target)
    forget_where_it_came_from(model)
    write(model, target)
    return sum(weights.name.endswith("_quantized") for weights in model.graph.initializer)
