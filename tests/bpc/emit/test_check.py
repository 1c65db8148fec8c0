"""Files held against the graph they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import fx, nn

import passes
from bpc.emit.axes import dynamic_axes
from bpc.emit.check import TOLERANCE, ExportError, FileAgreement, check_file, open_session
from passes.frontend.trace import exported_program
from tests.bpc.emit.models import parse


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    return passes.trace(nn.Linear(6, 4).eval(), torch.randn(3, 6))


def check(graph: fx.GraphModule, folder: Path, body: str, cases: Any = None, **more: np.ndarray) -> FileAgreement:
    """A file of ``body``, which reads the layer's weight ``w`` and bias ``b``."""
    weights = {
        "w": graph.get_parameter("weight").detach().numpy().T.copy(),
        "b": graph.get_parameter("bias").detach().numpy(),
    }
    model = parse("(float[batch, 6] x) => (float[batch, 4] y)", body, weights | more)
    ir.save(model, folder / "m.onnx")
    axes = dynamic_axes(graph, exported_program(graph))
    return check_file(folder / "m.onnx", graph, axes, tolerance=TOLERANCE["float32"], cases=cases)


def test_a_right_file_agrees_far_from_the_example(graph: fx.GraphModule, tmp_path: Path) -> None:
    found = check(graph, tmp_path, "p = MatMul(x, w) y = Add(p, b)")
    assert found.max_abs_diff < 1e-5
    assert found.scale > 0.3
    assert not found.fixed
    assert {"example", "batch 13", "batch 1"} <= set(found.shapes)


def test_a_file_that_holds_at_the_examples_size_alone_says_so(graph: fx.GraphModule, tmp_path: Path) -> None:
    found = check(graph, tmp_path, "p = MatMul(x, w) q = Add(p, b) y = Add(q, z)", z=np.zeros((3, 4), np.float32))
    assert "cannot run the exported file on inputs " in found.fixed["batch"]
    assert "example" in found.shapes


def test_a_file_has_to_be_right_on_every_case_that_is_given(graph: fx.GraphModule, tmp_path: Path) -> None:
    cases = [("three rows", [torch.randn(3, 6)]), ("five rows", [torch.randn(5, 6)])]
    assert check(graph, tmp_path, "p = MatMul(x, w) y = Add(p, b)", cases).shapes == ("three rows", "five rows")
    with pytest.raises(ExportError, match="cannot run the exported file on inputs five rows"):
        check(graph, tmp_path, "p = MatMul(x, w) q = Add(p, b) y = Add(q, z)", cases, z=np.zeros((3, 4), np.float32))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = MatMul(x, w)", r"differs from the graph by .* on inputs example"),
        ("p = MatMul(x, w) q = Add(p, b) y = Div(q, zero)", r"differs from the graph by"),
        (
            "p = MatMul(x, w) q = Add(p, b) y = Concat<axis = 0>(q, q)",
            r"the file returns \[\(6, 4\)\], the graph \[\(3, 4\)\]",
        ),
    ],
    ids=["no bias", "infinities", "another shape"],
)
def test_a_wrong_file_is_refused(graph: fx.GraphModule, tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check(graph, tmp_path, body, zero=np.zeros(1, np.float32))


def test_errors_count_against_what_the_outputs_have_reached(graph: fx.GraphModule, tmp_path: Path) -> None:
    weights = {"w": graph.get_parameter("weight").detach().numpy().T.copy()}
    bias = graph.get_parameter("bias").detach().numpy()
    model = parse(
        "(float[batch, 6] x) => (float[batch, 4] y)", "p = MatMul(x, w) y = Add(p, b)", weights | {"b": bias + 1e-3}
    )
    ir.save(model, tmp_path / "m.onnx")
    axes = dynamic_axes(graph, exported_program(graph))
    torch.manual_seed(0)
    small, large = ("small", [torch.randn(3, 6)]), ("large", [100 * torch.randn(3, 6)])
    with pytest.raises(ExportError, match=r"differs from the graph by 1\.0..e-03 \(outputs up to .* on inputs small"):
        check_file(tmp_path / "m.onnx", graph, axes, tolerance=TOLERANCE["float32"], cases=[small, large])
    found = check_file(tmp_path / "m.onnx", graph, axes, tolerance=TOLERANCE["float32"], cases=[large, small])
    assert found.scale > 50


def test_a_file_that_cannot_be_opened_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match="ONNX Runtime cannot open the file"):
        open_session(tmp_path / "m.onnx")
