"""ONNX models written as text, and what they compute without ONNX Runtime's own rewriting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

_KINDS = {np.dtype(np.float32): "float", np.dtype(np.int64): "int64", np.dtype(np.bool_): "bool"}


def parse(signature: str, body: str, weights: Mapping[str, np.ndarray] | None = None, opset: int = 23) -> ir.Model:
    """A model of ``signature``, "(float[batch, 4] x) => (float[batch, 2] y)", whose shapes are inferred."""
    constants = ", ".join(
        f"{_KINDS[a.dtype]}[{','.join(map(str, a.shape))}] {name} = {{{','.join(map(str, (a + 0).ravel().tolist()))}}}"
        for name, a in (weights or {}).items()
    )
    head = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    model = onnx.parser.parse_model(f"{head} g {signature} <{constants}> {{ {body} }}")
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def run(model: ir.Model, **feed: np.ndarray) -> list[np.ndarray]:
    """The outputs on ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    source = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def operators(model: ir.Model) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
