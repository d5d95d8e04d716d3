"""A torch network as an ONNX graph: named inputs, batch and length free, the same bytes for the same weights."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.models.graph import Graph

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

OPSET = 23  # the first with Attention as one operator; Gelu came with 20
_PLACES = 64  # of a size, at least, where the examples' sizes differ


def export(graph: Graph, path: Path, opset: int = OPSET) -> None:
    """Write ``graph`` to ``path`` as ONNX.

    An axis whose size differs between its two examples is left free, and axes that agree in both are one size.
    """
    import onnx
    import torch

    short, long = graph.short, graph.long
    _forget_earlier_exports()
    with _quietly():
        program: Any = torch.onnx.export(
            graph.module.eval(),
            kwargs=dict(long),
            input_names=list(long),
            output_names=list(graph.outputs),
            dynamic_shapes={name: _free(short[name], long[name], torch.export.Dim.DYNAMIC) for name in long},
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = program.model_proto
    _spread_masks(model)
    _name_sizes(model, short, long)
    forget_where_it_came_from(model)
    write(model, path)
    _fold_constants(path)
    model = onnx.load(path)
    forget_where_it_came_from(model)
    onnx.checker.check_model(model)
    write(model, path)


def opset_of(network: nn.Module) -> int:
    """The version of ONNX's operators; a network may need an older one, whose operators the runtime has."""
    return getattr(network, "opset", OPSET)


def write(model: onnx.ModelProto, path: Path) -> None:
    """The same graph, the same bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def _free(short: Tensor, long: Tensor, dynamic: Any) -> dict[int, Any]:
    """The axes whose size differs between the examples."""
    return {axis: dynamic for axis, (a, b) in enumerate(zip(short.shape, long.shape, strict=True)) if a != b}


def _forget_earlier_exports() -> None:
    """A second LSTM in one process would be unrolled to the example's length: torch 2.14 resolves the operator from a
    cache that the first export filled, and misses the decomposition that its exporter registers for free lengths.
    """
    import torch

    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        cache: dict[Any, Any] | None = getattr(operator, "_dispatch_cache", None)
        if cache is not None:
            cache.clear()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells its steps on stdout and warns of packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _spread_masks(model: onnx.ModelProto) -> None:
    """Give every Attention a mask with one row a query: ONNX Runtime's kernel does not broadcast over queries.

    A padding mask (B, 1, 1, T) serves all T queries of self-attention; it is expanded once for all layers.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    attention = [node for node in graph.node if node.op_type == "Attention" and len(node.input) > 3 and node.input[3]]
    shapes = _shapes(model)
    one, spread = "mask_one", {}
    for node in attention:
        mask = node.input[3]
        if shapes.get(mask, (None,) * 4)[-2] == 1 and mask not in spread:
            spread[mask] = f"{mask}_spread"
    for mask, wide in spread.items():
        first = next(i for i, node in enumerate(graph.node) if mask in node.input)
        size, shape = f"{mask}_size", f"{mask}_shape"
        for node in reversed(
            [
                helper.make_node("Shape", [mask], [size], name=size, start=3, end=4),
                helper.make_node("Concat", [one, one, size, one], [shape], name=shape, axis=0),
                helper.make_node("Expand", [mask, shape], [wide], name=wide),
            ]
        ):
            graph.node.insert(first, node)
    for node in attention:
        node.input[3] = spread.get(node.input[3], node.input[3])
    if spread:
        import numpy as np

        graph.initializer.append(numpy_helper.from_array(np.ones(1, dtype=np.int64), one))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[Any, ...]]:
    """Every value's shape as far as it is known; free sizes by name."""
    known = {}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        known[value.name] = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims)
    return known


def _fold_constants(path: Path) -> None:
    """Compute once what does not depend on the inputs (an LSTM's weights are put in order in the graph).

    ONNX Runtime's basic level: standard operators remain, nothing that is made for this CPU.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def forget_where_it_came_from(model: onnx.ModelProto) -> None:
    """Take out stack traces, paths and versions: they say nothing of the network and differ between machines."""
    import onnx

    graph = model.graph
    for thing in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    model.producer_name, model.producer_version = "lepton", ""
    del graph.value_info[:]  # shapes of what is in between: ONNX Runtime infers them
    used = {node.domain for node in graph.node} | {""}
    kept = sorted((o.domain, o.version) for o in model.opset_import if o.domain in used)
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in kept)


def _name_sizes(model: onnx.ModelProto, short: Mapping[str, Tensor], long: Mapping[str, Tensor]) -> None:
    """Call the free sizes ``rows``, ``size_1`` … in place of the exporter's symbols."""
    names: dict[tuple[int, int], str] = {}
    renamed: dict[str, str] = {}
    for value in model.graph.input:
        pairs: Sequence[tuple[int, int]] = list(zip(short[value.name].shape, long[value.name].shape, strict=True))
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_param"):
                name = "rows" if axis == 0 else names.setdefault(pairs[axis], f"size_{len(names) + 1}")
                renamed[dim.dim_param] = name
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_param = renamed.get(dim.dim_param, dim.dim_param)
