from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import fx, nn

import passes
from bpc.emit.onnx import export_onnx
from bpc.emit.quantize import quantize
from bpc.emit.recipe import Recipe, Rows, apply

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


@pytest.mark.parametrize("rows", ["batched", "flat"])
@pytest.mark.parametrize("static", [False, True])
def test_int8_keeps_the_function_and_the_last_layer(model: ir.Model, static: bool, rows: Rows) -> None:
    apply(Recipe("multi-head", residual="difference", rows=rows), model)
    expected = run(model)
    small = quantize(model, [FEED, {k: torch.from_numpy(v) for k, v in FEED.items()}] if static else None)
    actual = run(small)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.3  # quantized, and still the same function
    operators = Counter(n.op_type for n in small.graph)
    linear = 2 * 6  # two layers of six
    if static:
        assert operators["DequantizeLinear"] >= linear
        assert operators["MatMul"] == linear + 1
    else:
        assert operators["MatMulInteger"] == linear
        assert operators["MatMul"] == 1  # the answer head
    assert operators["MultiHeadAttention"] == 2
    weights = [v for v in small.graph.initializers.values() if v.dtype == ir.DataType.INT8 and len(v.shape or ()) == 2]
    assert len(weights) == linear


@pytest.mark.parametrize("lossy", [True, False])
def test_processors_that_saturate_get_weights_of_seven_bits(
    model: ir.Model, monkeypatch: pytest.MonkeyPatch, lossy: bool
) -> None:
    monkeypatch.setattr("bpc.emit.quantize.saturates", lambda: lossy)
    found = [v.const_value.numpy() for v in quantize(model).graph.initializers.values() if v.dtype == ir.DataType.INT8]
    largest = max(int(np.abs(weight.astype(int)).max()) for weight in found)
    assert largest <= 64 if lossy else 64 < largest <= 128


def test_int8_in_groups_is_int8_at_once(model: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(Recipe("multi-head"), model)
    at_once = quantize(model)
    monkeypatch.setattr("bpc.emit.quantize._GROUP", 0)
    monkeypatch.setattr("bpc.emit.quantize._SMALL", 100)
    in_groups = quantize(model)
    assert Counter(n.op_type for n in in_groups.graph) == Counter(n.op_type for n in at_once.graph)
    assert [v.name for v in in_groups.graph.inputs] == ["input_ids", "attention_mask"]
    np.testing.assert_array_equal(run(in_groups), run(at_once))


def test_int8_export_is_checked_and_described(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    written = export_onnx(tiny_graph, tmp_path / "m.onnx", dtype="int8")
    plain = export_onnx(tiny_graph, tmp_path / "f.onnx", check=False)
    assert written.agreement is not None
    assert written.agreement.max_abs_diff > 1e-4
    properties = ir.load(written.path).metadata_props
    assert properties["bpc.dtype"] == "int8"
    assert properties["bpc.flops"] == ir.load(plain.path).metadata_props["bpc.flops"]


class Classifier(nn.Module):
    """Linear layers on pooled rows, which torch.onnx writes as Gemm."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.pool, self.head = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.pool(torch.relu(self.body(x))[:, 0])))


@pytest.mark.parametrize("static", [False, True])
def test_int8_of_a_classifier_on_pooled_rows(tmp_path: Path, static: bool) -> None:
    torch.manual_seed(0)
    graph = passes.trace(Classifier().eval(), torch.randn(3, 5, 8))
    calibration = [{"x": torch.randn(4, 5, 8)}] if static else None
    written = export_onnx(graph, tmp_path / "m.onnx", dtype="int8", calibration=calibration)
    assert written.agreement is not None
    assert 1e-4 < written.agreement.max_abs_diff < 0.1
    weights = ir.load(written.path).graph.initializers.values()
    kinds = {v.shape[1]: v.dtype for v in weights if v.shape is not None and len(v.shape) == 2}
    assert kinds == {16: ir.DataType.INT8, 12: ir.DataType.INT8, 3: ir.DataType.FLOAT}  # the head stays


class Tied(nn.Module):
    """Words whose table is the output layer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(900, 16), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        return nn.functional.linear(x + self.down(torch.relu(self.up(x))), self.words.weight)


def test_a_tied_output_layer_is_the_last_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = passes.trace(Tied().eval(), torch.arange(12).view(2, 6))
    stored = ir.load(export_onnx(graph, tmp_path / "m.onnx", dtype="int8").path).graph
    operators = Counter(node.op_type for node in stored)
    assert (operators["MatMulInteger"], operators["MatMul"]) == (2, 1)


def test_calibration_inputs_need_the_models_names(model: ir.Model) -> None:
    with pytest.raises(ValueError, match="lack attention_mask"):
        quantize(model, [{"input_ids": FEED["input_ids"]}])
