"""Large constants stored as float16 and computed in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import fx, nn

import passes
from bpc.emit import embeddings as emit_embeddings
from bpc.emit import stored
from bpc.emit.check import TOLERANCE
from bpc.emit.onnx import export_onnx
from bpc.emit.stored import StoreHalf
from tests.bpc.emit.models import numbers, operators, parse, run
from tests.bpc.emit.test_embeddings import initializers

HALF = ir.DataType.FLOAT16


@pytest.fixture(autouse=True)
def small_weights_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_FEW", 20)


def product(weight: np.ndarray) -> ir.Model:
    body = "p = MatMul(x, w) q = Add(p, b) r = Neg(w) s = MatMul(x, r) y = Sub(q, s)"
    weights = {"w": np.nan_to_num(weight, posinf=0), "b": numbers(8, seed=1)}
    model = parse("(float[batch, 6] x) => (float[batch, 8] y)", body, weights)
    model.graph.initializers["w"].const_value = ir.tensor(weight, name="w")
    return model


def half(weight: np.ndarray) -> np.ndarray:
    return weight.astype(np.float16).astype(np.float32)


def test_weights_are_rounded_once_and_computed_in_float32(tmp_path: Path) -> None:
    weight, x = numbers(6, 8), numbers(3, 6, seed=2)
    model = product(weight)
    step = StoreHalf()
    assert step(model).modified
    assert not step(model).modified
    assert not step.kept
    kinds = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert kinds == {"w": HALF, "b": ir.DataType.FLOAT}  # eight numbers save nothing
    assert operators(model)["Cast"] == 1  # for both readers
    expected = 2 * (x @ half(weight)) + numbers(8, seed=1)
    np.testing.assert_allclose(run(model, x=x)[0], expected, rtol=1e-5, atol=1e-5)
    assert initializers(model, tmp_path)["FLOAT"] == 2 * 48 + 8  # folded when the file is loaded: w and its negation


def test_looked_up_tables_stay_half_and_their_rows_are_widened(tmp_path: Path) -> None:
    table = numbers(30, 4)
    body = "y = Gather(table, ids)"
    model = parse("(int64[batch] ids) => (float[batch, 4] y)", body, {"table": table})
    StoreHalf()(model)
    ids = np.array([3, 29, 0])
    np.testing.assert_array_equal(run(model, ids=ids)[0], half(table)[ids])
    assert model.graph.outputs[0].name == "y"
    assert initializers(model, tmp_path) == {"FLOAT16": 120}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w.__setitem__((0, 0), 7e4), "holds 7e+04, beyond float16's 65504"),
        (lambda w: w.__setitem__((0, 0), np.finfo(np.float32).min), "beyond float16's 65504"),
        (lambda w: w.__imul__(np.float32(1e-7)), "too small for float16"),
        (lambda w: w.__setitem__(slice(None), np.arange(48).reshape(6, 8) * 101), "whole numbers over 2048"),
    ],
)
def test_what_float16_does_not_hold_stays_and_is_named(change, reason: str) -> None:  # type: ignore[no-untyped-def]
    weight = numbers(6, 8)
    change(weight)
    model = product(weight)
    step = StoreHalf()
    assert not step(model).modified
    assert reason in step.kept["w"]
    assert model.graph.initializers["w"].dtype == ir.DataType.FLOAT


@pytest.mark.parametrize("change", [(-np.inf), 0.0])
def test_infinities_and_zeros_are_held(change: float) -> None:
    weight = numbers(6, 8)
    weight[:, 1] = change
    model = product(weight)
    assert StoreHalf()(model).modified
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), weight.astype(np.float16))
    whole = np.full((6, 8), change, np.float32)
    assert StoreHalf()(product(whole)).modified


class Masked(nn.Module):
    """A table of numbers that float16 lacks beside two that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.up, self.head = nn.Embedding(40, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.register_buffer("floor", torch.full((16, 16), torch.finfo(torch.float32).min))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.maximum(torch.relu(self.up(self.words(ids))), self.floor))


@pytest.fixture
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    return passes.trace(Masked().eval(), torch.arange(32).view(2, 16))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_files_in_half_the_bytes_are_checked_and_say_what_stays(
    graph: fx.GraphModule, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emit_embeddings, "SMALL", 1)
    written = export_onnx(graph, tmp_path / "m.onnx", dtype=dtype, storage="float16")  # type: ignore[arg-type]
    assert list(written.kept.values()) == ["holds 3.4e+38, beyond float16's 65504"]
    assert written.agreement is not None
    assert 1e-5 < written.agreement.share < (1e-3 if dtype == "float32" else 0.1)
    model = ir.load(written.path)
    assert model.metadata_props["bpc.storage"] == "float16"
    large = [v for v in model.graph.initializers.values() if v.const_value is not None and v.const_value.size > 20]
    kinds = sorted(v.dtype.name for v in large)
    int8 = ["FLOAT", "FLOAT16", "FLOAT16", "INT8", "INT8"]  # floor; head and the table's scales; up and table
    assert kinds == (int8 if dtype == "int8" else ["FLOAT", "FLOAT16", "FLOAT16", "FLOAT16"])


def test_a_wrong_form_is_found_before_rounding_hides_it(
    graph: fx.GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerances = []

    def check_file(*_: object, tolerance: object, **__: object) -> object:
        tolerances.append(tolerance)
        return type("Agreement", (), {"fixed": {}})()

    monkeypatch.setattr("bpc.emit.onnx.check_file", check_file)
    export_onnx(graph, tmp_path / "m.onnx", storage="float16")
    export_onnx(graph, tmp_path / "m.onnx", embeddings="int8")
    export_onnx(graph, tmp_path / "m.onnx")
    kinds = ["float32", "float16", "float32", "float32"]
    assert tolerances == [TOLERANCE[kind] for kind in kinds]


def test_storage_is_not_for_half_precision(graph: fx.GraphModule, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='storage="float16" is for dtype="float32" and "int8"'):
        export_onnx(graph, tmp_path / "m.onnx", "cuda", "bfloat16", storage="float16")
