"""Half-precision files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from torch import fx

from bpc.emit.floats import ConvertFloats
from bpc.emit.onnx import export_onnx
from bpc.emit.recipe import Recipe, apply

FEED = {
    "input_ids": np.arange(3, 30).reshape(3, 9),
    "attention_mask": (np.arange(9) < [[9], [5], [2]]).astype(np.int64),
}


def run(model: ir.Model | Path) -> np.ndarray:
    source = model if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, FEED)[0]


@pytest.fixture
def model(exported: ir.Model) -> ir.Model:
    return exported.clone()


def test_float16_numbers_are_close_and_outputs_stay_float32(model: ir.Model) -> None:
    expected = run(model)
    assert ConvertFloats(ir.DataType.FLOAT16)(model).modified
    assert not [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    actual = run(model)
    assert actual.dtype == np.float32
    assert 1e-6 < np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()
    assert not ConvertFloats(ir.DataType.FLOAT16)(model).modified


def test_the_lowest_float32_stays_finite(model: ir.Model) -> None:
    apply(Recipe("multi-head"), model)
    assert [v for v in model.graph.initializers.values() if v.const_value.numpy().min() < -1e30]
    ConvertFloats(ir.DataType.BFLOAT16)(model)
    for value in model.graph.initializers.values():
        if value.dtype == ir.DataType.BFLOAT16:
            assert np.isfinite(value.const_value.numpy().astype(np.float32)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_for_cuda(tiny_graph: fx.GraphModule, tmp_path: Path, dtype: str) -> None:
    written = export_onnx(tiny_graph, tmp_path / "m.onnx", target="cuda", dtype=dtype)  # type: ignore[arg-type]
    assert written.agreement is not None
    if dtype == "float16":  # the file itself, which the CPU provider runs with casts
        assert not written.not_run
        assert 1e-5 < written.agreement.share < 0.05
    else:  # the form, in float32
        assert written.not_run.startswith("not run: ONNX Runtime cannot open")
        assert written.agreement.share < 1e-4
    graph = ir.load(written.path).graph
    assert {v.dtype for v in graph.outputs} == {ir.DataType.FLOAT}
    operators = Counter((n.domain, n.op_type) for n in graph)
    assert operators["com.microsoft", "MultiHeadAttention"] == 2
    kinds = {v.dtype for v in graph.initializers.values()}
    assert ir.DataType[dtype.upper()] in kinds
    assert ir.DataType.FLOAT not in kinds
