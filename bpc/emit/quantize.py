"""int8 files through ONNX Runtime's own quantizers: dynamic, or static where calibration inputs are given.

What is quantized is the products with constant weights (linear layers): they are nearly all of the arithmetic. What
stays in float32: attention scores and softmax, normalisations, residuals, embeddings, and the last linear layers, whose
rounding would go straight into the outputs and which cost next to nothing.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from bpc.emit.ir_tools import producer
from bpc.emit.linear import SplitGemm, linear_layers
from bpc.emit.storage import write

_GROUP = 64_000_000  # bytes of weights quantized at a time
_SMALL = 10_000  # bytes; smaller constants (sizes, biases) are left where they are

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)

Inputs = Mapping[str, "torch.Tensor | np.ndarray"]


def quantize(model: ir.Model, calibration: Iterable[Inputs] | None = None) -> ir.Model:
    """An int8 copy of a float32 model.

    Weights are signed and have one scale per output feature; 7 bits of them on a processor that `saturates`.
    Activations are unsigned: scaled per run (dynamic), or, where ``calibration`` gives inputs ({input name: array or
    tensor}, a few dozen batches), once from the ranges seen there (static; from the smallest to the largest number).
    Raises ValueError for calibration inputs of wrong names.
    """
    model = model.clone()
    SplitGemm()(model)  # the quantizer's own rewrite of Gemm transposes weights and keeps their old shapes
    options: dict[str, Any] = {
        "op_types_to_quantize": ["MatMul"],
        "per_channel": True,
        "weight_type": QuantType.QInt8,
        "reduce_range": saturates(),
        "nodes_to_exclude": _output_layers(model),
        "extra_options": {"MatMulConstBOnly": True},
        "use_external_data_format": True,
    }
    with _quiet():
        if calibration is not None:
            return _static(model, _Reader(model, calibration), options)
        for group in _groups(model):
            model = _dynamic(model, group, options)
        return model


def saturates() -> bool:
    """Whether two products of 8 bits can be more than this processor adds up without loss: x86 without VNNI has 16 bits
    for them, and 255 · 127 · 2 > 2¹⁵. Weights of 7 bits always fit."""
    found = torch.cpu.get_capabilities()
    return found["architecture"] == "x86_64" and not (found["avx512_vnni"] or found["avx_vnni"])


def _static(model: ir.Model, reader: CalibrationDataReader, options: Mapping[str, Any]) -> ir.Model:
    with tempfile.TemporaryDirectory(prefix="bpc-int8-") as name:
        folder = Path(name)
        source, destination = write(model, folder, "float.onnx", external=True), folder / "int8.onnx"
        del model
        quantize_static(
            source,
            destination,
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
            **options,
        )
        return _in_memory(ir.load(destination))


def _dynamic(model: ir.Model, weights: Sequence[ir.Value], options: Mapping[str, Any]) -> ir.Model:
    """Quantize the products with ``weights``. All other large constants stay out, standing in as graph inputs:
    the quantizer holds what it is given four times over."""
    own = {value.name for value in weights}
    absent = {
        str(v.name): v.const_value
        for v in model.graph.initializers.values()
        if v.const_value is not None and v.const_value.nbytes > _SMALL and v.name not in own
    }
    for name in absent:
        value = model.graph.initializers.pop(name)
        value.const_value = None
        model.graph.inputs.append(value)
    with tempfile.TemporaryDirectory(prefix="bpc-int8-") as name:
        folder = Path(name)
        source, destination = write(model, folder, "float.onnx", external=True), folder / "int8.onnx"
        quantize_dynamic(source, destination, **options)
        result = _in_memory(ir.load(destination))
    for value in [v for v in result.graph.inputs if v.name in absent]:
        result.graph.inputs.remove(value)
        value.const_value = absent[str(value.name)]
        result.graph.register_initializer(value)
    return result


def _groups(model: ir.Model) -> list[list[ir.Value]]:
    """The weights of all linear layers in groups of some `_GROUP` bytes.

    Weights that several layers share come once; layers that read one input stay together, so that it is quantized once.
    """
    by_input: dict[ir.Value, list[ir.Value]] = {}
    for layer in linear_layers(model.graph):
        by_input.setdefault(layer.input, []).append(layer.weight)
    groups: list[list[ir.Value]] = [[]]
    seen: set[ir.Value] = set()
    for weights in by_input.values():
        if sum(map(_bytes, groups[-1])) > _GROUP:
            groups.append([])
        groups[-1] += [w for w in dict.fromkeys(weights) if w not in seen]
        seen.update(weights)
    return groups


def _bytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0


def _output_layers(model: ir.Model) -> list[str]:
    """Names of the linear layers after which no other linear layer comes on the way to an output."""
    products = {layer.product for layer in linear_layers(model.graph)}
    last: list[str] = []
    seen: set[ir.Node] = set()
    queue = [value.producer() for value in model.graph.outputs]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in products:
            last.append(str(node.name))
        elif not _reads_table(node):
            # Integers are sizes and positions: what they come from does not reach the outputs as numbers.
            numbers = [v for v in node.inputs if v is not None and v.dtype not in _INTEGERS]
            queue.extend(value.producer() for value in numbers)
    return last


def _reads_table(node: ir.Node) -> bool:
    """Whether a product is an output layer tied to a table, MatMul(x, Transpose(table)): it is the last by itself."""
    turned = producer(node.inputs[1], "Transpose") if node.op_type == "MatMul" else None
    return turned is not None and turned.inputs[0] is not None and turned.inputs[0].const_value is not None


def _in_memory(model: ir.Model) -> ir.Model:
    """Read the weights now: the files they come from are about to go."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.tensor(tensor.numpy().copy(), name=tensor.name)
    return model


class _Reader(CalibrationDataReader):
    """Calibration inputs in the form the quantizer reads."""

    def __init__(self, model: ir.Model, inputs: Iterable[Inputs]) -> None:
        self._kinds = {str(v.name): v.dtype.numpy() for v in model.graph.inputs if v.dtype is not None}
        self._feeds: Iterator[Inputs] = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next feed, or None at the end."""
        feed = next(self._feeds, None)
        if feed is None:
            return None
        missing = sorted(set(self._kinds) - set(feed))
        if missing:
            raise ValueError(f"calibration inputs lack {', '.join(missing)}; the model reads {', '.join(self._kinds)}")
        return {name: np.asarray(feed[name]).astype(kind) for name, kind in self._kinds.items()}


class _quiet:
    """The quantizers log advice on the root logger (pre-processing that the graph passes have already done)."""

    def __enter__(self) -> None:
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self._level)
