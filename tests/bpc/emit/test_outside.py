"""Models that branch on a size: where the file would answer for another branch, its axis is static."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import passes
from bpc.emit.onnx import export_onnx

pytestmark = pytest.mark.filterwarnings("ignore")


class Branch(nn.Module):
    """``kind``: long inputs, even lengths, single rows treated apart; or a table of positions that ends."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear, self.table = kind, nn.Linear(6, 6), nn.Embedding(20, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length = x.shape[:2]
        if self.kind == "table":
            return self.linear(x + self.table(torch.arange(length)))
        apart = {"long": length > 8, "even": length % 2 == 0, "single": batch == 1}[self.kind]
        return self.linear(x) * 2 if apart else self.linear(x)


@pytest.mark.parametrize(
    ("kind", "example", "axis", "reason"),
    [
        ("long", (4, 12, 6), "sequence", "'x' must have size 9 or more in dim 1"),
        ("long", (4, 5, 6), "sequence", "'x' must have size 8 or less in dim 1"),
        ("even", (4, 12, 6), "sequence", "% 2"),
        ("single", (4, 12, 6), "batch", "'x' must be longer than 1 in dim 0"),
        ("table", (4, 12, 6), None, ""),
    ],
)
def test_an_axis_that_branches_is_static(
    kind: str, example: tuple[int, ...], axis: str | None, reason: str, tmp_path: Path
) -> None:
    model = Branch(kind).eval()
    graph = passes.trace(model, {"x": torch.randn(example)})
    written = export_onnx(graph, tmp_path / "model.onnx")
    assert written.agreement is not None
    assert list(written.agreement.fixed) == ([axis] if axis else [])
    assert all(reason in why for why in written.agreement.fixed.values())
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    answered = 0
    for batch in (1, 2, 4):
        for length in (1, 5, 8, 9, 12, 25):
            x = torch.randn(batch, length, 6)
            try:
                actual = session.run(None, {"x": x.numpy()})[0]
            except Exception:
                continue
            answered += 1
            with torch.no_grad():
                assert np.abs(actual - model(x).numpy()).max() < 1e-5, (batch, length)
    assert answered > 1
