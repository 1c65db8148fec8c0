"""Stacked experts as ONNX files: rows that are grouped by expert, as transformers runs them by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

import passes
from bpc.emit.onnx import export_onnx
from tests.passes.families.base import text
from tests.passes.test_experts import mixtral

FALLBACK = torch.ops.transformers.grouped_mm_fallback.default


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return FALLBACK(x, self.up, ends)


@pytest.mark.parametrize("ends", [[2, 2, 5], [0, 0, 7], [7, 7, 7], [1, 3, 3], [0, 0, 0]])
def test_rows_meet_the_matrix_of_their_group_and_those_after_the_last_are_0(ends: list[int], tmp_path: Path) -> None:
    x, given = torch.randn(7, 8), torch.tensor(ends, dtype=torch.int32)
    export_onnx(passes.trace(Experts(), (torch.randn(6, 8), given)), tmp_path / "m.onnx", check=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (x.numpy(), given.numpy()), strict=True)))
    np.testing.assert_allclose(found, FALLBACK(x, Experts().up, given).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_mixture_of_experts_is_checked_like_any_model(tmp_path: Path) -> None:
    graph = passes.trace(mixtral("grouped_mm", dtype=torch.float32), dict(text()))
    written = export_onnx(graph, tmp_path / "m.onnx", dtype="int8")
    assert written.agreement is not None
    assert len(written.agreement.shapes) > 4
    weights = [v for v in ir.load(written.path).graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert len([v for v in weights if tuple(v.shape) in ((32, 96), (48, 32))]) == 6  # each expert's, in 8 bits
