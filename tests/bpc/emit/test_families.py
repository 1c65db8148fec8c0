"""Every family of the compiler's suite as an ONNX file: ONNX Runtime computes what the small graph does, to 1e-4.

`export_onnx` compares the file with the graph itself, on the example, on fresh inputs of other sizes and on batch 1; it
raises where they differ.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import torch

import passes
from bpc.emit.onnx import export_onnx
from tests.passes.families import FAMILIES, make
from tests.passes.family_masks import draw


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every second family, the others tomorrow; all with --every-pair."""
    today = datetime.date.today().toordinal()
    every = metafunc.config.getoption("--every-pair")
    metafunc.parametrize("name", [name for i, name in enumerate(FAMILIES) if every or (i + today) % 2])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_onnx_runtime_agrees(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    model, inputs = make(family, family.forms[0], torch.float32)
    masks = draw("heads", family, {n: p.detach() for n, p in model.named_parameters()})
    small = passes.shrink(passes.trace(model, inputs), masks, verify=False).graph_module
    agreement = export_onnx(small, tmp_path / "model.onnx").agreement
    assert agreement is not None
    assert agreement.max_abs_diff <= 1e-4 * max(1.0, agreement.scale)
    assert agreement.shapes[0] == "example"
    assert len(agreement.shapes) > 1
