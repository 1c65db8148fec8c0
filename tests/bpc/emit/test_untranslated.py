"""An operator that ONNX lacks is named, with the model's line and another way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import passes
from bpc.emit.check import ExportError
from bpc.emit.onnx import export_onnx


class Running(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).cummax(-1).values


@pytest.mark.filterwarnings("ignore")
def test_the_operator_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    graph = passes.trace(Running(), torch.randn(3, 4))
    with pytest.raises(ExportError, match=r"no form of aten.cummax.default: .*test_untranslated.py:\d+ in forward"):
        export_onnx(graph, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
