from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn

import passes
from bpc.emit.onnx import export_onnx
from bpc.timing.feed import random_feed
from bpc.timing.worker import _bound


def test_a_bound_run_computes_what_a_plain_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    written = export_onnx(passes.trace(nn.Linear(6, 4).eval(), torch.randn(3, 6)), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    feed = random_feed(ir.load(written.path), 5, 1)
    run = _bound(session, feed, "cpu")
    for _ in range(2):
        (output,) = run()  # type: ignore[misc]
        np.testing.assert_array_equal(output.numpy(), session.run(None, feed)[0])
