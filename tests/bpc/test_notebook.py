"""Reprs are one line; in notebooks objects show tables, everything escaped."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

import bpc
import passes
from bpc.notebook import cuts, line, table
from bpc.oneshot.report import Choice, OneShotReport
from passes.explain import explain
from passes.plan.data import Cut, PlanData


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x).relu())


@pytest.fixture(scope="module")
def program() -> bpc.Program:
    torch.manual_seed(0)
    spec = {"name": "dims", "rules": [{"roles": ["ffn.*"], "block": [1, "in_features"], "paired": True}]}
    program = bpc.compile(Model().eval(), spec, torch.randn(2, 8))
    with torch.no_grad():
        next(iter(program.score_parameters()))[:9] = -100.0
    program.set_progress(1.0)
    return program


def test_every_repr_is_one_line(program: bpc.Program) -> None:
    dense, masks = program.shrink(), program.masks()
    graph: fx.GraphModule = program.plain_graph()
    result = passes.shrink(graph, masks)
    assert repr(dense) == repr(result).replace("ShrinkResult", "DenseModel")
    assert repr(dense).startswith("DenseModel(parameters 212 → 59, apart by ")
    assert repr(dense.plan) == "Plan(3 cuts, 0 folds, 0 constants)"
    assert repr(program.plans[0]) == "MaskPlan('up.weight', ffn.up, 12×8 in blocks of 1×8)"
    assert repr(result.certificate).startswith("Certificate(graph, float32, 4 tensors → 4, apart by ")
    assert repr(explain(graph, masks)) == "Explanation(1 blocks, 0 skipped)"
    assert repr(result.report.agreement).startswith("Agreement(largest difference ")
    assert all("\n" not in repr(one) for one in (program, dense, dense.plan, result, result.report))


def test_notebooks_show_what_is_left(program: bpc.Program) -> None:
    dense = program.shrink()
    assert "<td>3 of 12</td>" in program._repr_html_()
    assert "spec=&#x27;dims&#x27;" in program._repr_html_()
    assert "<td>up.weight</td><td>12×8</td><td>3×8</td>" in dense._repr_html_()
    assert "verified: largest difference" in dense._repr_html_()


def test_everything_is_escaped() -> None:
    assert line("<b>") == "<p>&lt;b&gt;</p>"
    assert "<td>&lt;b&gt;</td>" in table(("&",), [("<b>",)])
    assert cuts(PlanData((Cut("<w>", (4, 2), {0: (1,)}),))).count("<td>&lt;w&gt;</td><td>4×2</td><td>1×2</td>") == 1


def test_a_one_shot_report_is_short_and_folds_its_table() -> None:
    report = OneShotReport(
        bpc.Target(density=0.5), (Choice("ffn.0", "down.weight", "dim", 3, 12, 0.1),), 4, 0.25, None, 1.0, 2.0, "s", {}
    )
    assert repr(report).endswith("3 units kept, divergence 0.2500)")
    assert "<td>down.weight</td><td>dim</td><td>3</td><td>12</td>" in report._repr_html_()
