"""int8 files through ONNX Runtime's own quantizers: dynamic, or static where calibration inputs are given.

What is quantized is the products with constant weights (linear layers): they are nearly all of the arithmetic. What
stays in float32: attention scores and softmax, normalisations, residuals, embeddings, and the last linear layers, whose
rounding would go straight into the outputs and which cost next to nothing.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

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

from bpc.emit.linear import SplitGemm, linear_layers
from bpc.emit.storage import EXTERNAL_ABOVE, weight_bytes, write

Inputs = Mapping[str, "torch.Tensor | np.ndarray"]


def quantize(model: ir.Model, calibration: Iterable[Inputs] | None = None) -> ir.Model:
    """An int8 copy of a float32 model.

    Weights are signed and have one scale per output feature. Activations are unsigned: scaled per run (dynamic), or,
    where ``calibration`` gives inputs ({input name: array or tensor}, a few dozen batches), once from the ranges
    seen there (static; from the smallest to the largest number). Raises ValueError for calibration inputs of wrong
    names.
    """
    model = model.clone()
    SplitGemm()(model)  # the quantizer's own rewrite of Gemm transposes weights and keeps their old shapes
    outer = _output_layers(model)
    reader = _Reader(model, calibration) if calibration is not None else None
    with tempfile.TemporaryDirectory(prefix="bpc-int8-") as folder, _quiet():
        source, destination = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        external = weight_bytes(model) > EXTERNAL_ABOVE
        write(model, source.parent, source.name, external)
        del model
        if reader is None:
            quantize_dynamic(
                source,
                destination,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=outer,
                use_external_data_format=external,
                extra_options={"MatMulConstBOnly": True},
            )
        else:
            quantize_static(
                source,
                destination,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=outer,
                calibrate_method=CalibrationMethod.MinMax,
                use_external_data_format=external,
                extra_options={"MatMulConstBOnly": True},
            )
        return _in_memory(ir.load(destination))


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
        else:
            queue.extend(value.producer() for value in node.inputs if value is not None)
    return last


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
