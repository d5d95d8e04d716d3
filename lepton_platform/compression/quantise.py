"""Weights of an ONNX graph in eight bits; activations are quantised on the way, by the range of the batch at hand.

Dynamic quantisation (ONNX Runtime): no calibration rows needed, the products are integer arithmetic.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from lepton_platform.compression.export import forget_where_it_came_from, write
from lepton_platform.stage import StageFailed

# "Attention" is not among them: the quantiser takes it for another operator of that name.
OPERATORS = ("MatMul", "Gemm", "Gather", "LSTM")

# The quantiser's preparation is ONNX Runtime's basic optimisation, which ``export`` has done; without this mark
# it asks for it with two warnings on stderr.
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}


def quantise(source: Path, target: Path, *, per_channel: bool, reduce_range: bool, keep_float: Sequence[str]) -> int:
    """Write ``source`` with int8 weights to ``target``; returns how many weights were quantised.

    ``per_channel``: a scale a column and not a matrix. ``reduce_range``: 7 bits, which cannot overflow the 16-bit
    sums of CPUs without VNNI, so that the answers are the same on every CPU. ``keep_float``: patterns of the names
    of operators left as they are.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source)
    names = [node.name for node in graph.graph.node if node.op_type in OPERATORS]
    unused = [pattern for pattern in keep_float if not any(fnmatchcase(name, pattern) for name in names)]
    if unused:
        raise StageFailed(
            f"compress.keep_float: {', '.join(unused)} fits no operator of the graph. There are: {', '.join(names)}."
        )
    kept = [name for name in names if any(fnmatchcase(name, pattern) for pattern in keep_float)]
    onnx.helper.set_model_props(graph, _PREPARED)
    quantize_dynamic(
        graph,
        target,
        op_types_to_quantize=list(OPERATORS),
        nodes_to_exclude=kept,
        per_channel=per_channel,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
    )
    model = onnx.load(target)
    forget_where_it_came_from(model)
    write(model, target)
    return sum(weights.name.endswith("_quantized") for weights in model.graph.initializer)
