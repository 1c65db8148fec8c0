"""Inputs made from a file alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

import passes
from bpc.emit.onnx import export_onnx
from bpc.timing.feed import INPUTS_KEY, random_feed


class Padded(nn.Module):
    """Hides keys in torch's sense: True is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]


def test_masks_hide_nothing_in_their_own_sense(tmp_path: Path) -> None:
    padding = torch.arange(5).expand(2, 5) >= torch.tensor([[5], [3]])
    written = export_onnx(passes.trace(Padded().eval(), (torch.randn(2, 5, 8), padding)), tmp_path / "m.onnx")
    feed = random_feed(ir.load(written.path), 3, 4)
    assert feed["padding"].shape == (3, 4)
    assert not feed["padding"].any()


def test_inputs_follow_the_file(tmp_path: Path) -> None:
    def value(name: str, dtype: ir.DataType, *shape: str | int) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))

    inputs = [
        value("ids", ir.DataType.INT64, "batch", "sequence"),
        value("mask", ir.DataType.BOOL, "batch", "sequence"),
        value("image", ir.DataType.FLOAT16, "batch", 3, "height"),
    ]
    model = ir.Model(ir.Graph(inputs, [], nodes=[], opset_imports={"": 20}), ir_version=10)
    model.metadata_props[INPUTS_KEY] = json.dumps({"ids": [5, 7], "mask": [1, 1], "height": 9})
    feed = random_feed(model, 40, 6)
    assert set(np.unique(feed["ids"])) == {5, 6, 7}
    assert feed["ids"].shape == (40, 6)
    assert feed["mask"].all()
    assert (feed["image"].shape, feed["image"].dtype) == ((40, 3, 9), np.float16)
    np.testing.assert_array_equal(random_feed(model, 40, 6)["image"], feed["image"])  # both sides see the same
