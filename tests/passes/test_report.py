"""The report names what stays although it is zero, with the reason that applies to that very place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

import passes
from passes.analysis.coupling.why_kept import ROTARY, SHARED
from passes.report import Kept
from tests.passes.families import FAMILIES, make


def reasons(name: str, masks: dict[str, torch.Tensor]) -> dict[str, str]:
    """{parameter[dim]: why}, without the counts."""
    model, inputs = make(FAMILIES[name], FAMILIES[name].forms[0])
    result = passes.shrink(passes.trace(model, inputs), masks, verify=False)
    return {key.partition(" ")[0]: reason for key, reason in result.report.pinned.items()}


def rows(count: int, columns: int, gone: Any) -> torch.Tensor:
    mask = torch.ones(count, columns, dtype=torch.bool)
    mask[list(gone)] = False
    return mask


def test_llama_keeps_the_partner_of_a_rotary_dim_and_the_width_its_norm_averages() -> None:
    layer = "model.layers.0.self_attn."
    masks = {
        f"{layer}q_proj.weight": rows(32, 32, range(0, 32, 8)),  # dim 0 of every head; dim 4, its partner, lives
        f"{layer}o_proj.weight": rows(32, 32, [3, 5]),
    }
    assert reasons("llama", masks) == {
        f"{layer}q_proj.weight[0]": ROTARY,
        f"{layer}o_proj.weight[0]": "pinned: reduced by mean: over fewer channels it is another number",
    }


def test_bert_keeps_the_residual_width_and_pads_ragged_heads() -> None:
    layer = "bert.encoder.layer.0."
    masks = {
        f"{layer}attention.self.value.weight": rows(32, 32, [0, 1, 8]),  # two dims of head 0, one of head 1
        f"{layer}output.dense.weight": rows(32, 48, [7]),
        "classifier.weight": rows(2, 32, [1]),
    }
    padding = "padding: every head keeps as many dims as the largest of its layer"
    masks[f"{layer}attention.self.value.weight"][16:19] = masks[f"{layer}attention.self.value.weight"][25] = False
    assert reasons("bert", masks) == {
        f"{layer}attention.self.value.weight[0]": padding,
        f"{layer}output.dense.weight[0]": "pinned: normalised by layer_norm",
        "classifier.weight[0]": "pinned: an output of the model",
    }


def test_pieces_of_a_fused_weight_answer_for_themselves() -> None:
    masks = {"layers.0.attn.Wqkv.weight": rows(96, 32, [0, 8, 16, 24, 64, 65, 73, 80, 89])}  # q: dim 0; v: 2, 1, 1, 1
    assert reasons("modernbert", masks) == {
        "layers.0.attn.Wqkv.weight[0]": f"{ROTARY}; padding: every head keeps as many dims as the largest of its layer"
    }


class FusedGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.up(x).chunk(2, -1)
        return self.down(gate.sigmoid() * up)


def test_halves_of_a_fused_gate_are_no_rotary_pairs() -> None:
    result = passes.shrink(passes.trace(FusedGate(), torch.randn(2, 3, 4)), {"up.weight": rows(6, 4, [1])})
    assert dict(result.report.pinned) == {"up.weight[0] (1 of 6)": SHARED}


class Uniform(nn.Module):
    """All queries empty: the scores need one (zero) dim, and a convolution's weight is named like a matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.conv = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv1d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.conv(mixed.transpose(1, 2))


def test_an_axis_in_use_keeps_one_index() -> None:
    model = Uniform().double()
    with torch.no_grad():
        model.q.weight.zero_()
        model.q.bias.zero_()
        model.conv.weight[2] = 0
    pinned = passes.shrink(passes.trace(model, torch.randn(2, 3, 4).double())).report.pinned
    assert pinned["q.weight[0] (2 of 4)"] == "needed: an axis that is in use keeps one index"
    assert pinned["conv.weight[0] (1 of 4)"] == "pinned: an output of the model"


class Feeder(nn.Module):
    """Two layers of 8 x 8 with a norm behind each, whose width cannot shrink."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norms[1](self.second(self.norms[0](self.first(x))))


def test_scattered_zeros_are_said_to_stay_and_why() -> None:
    """2:4 patterns: half of all entries are zero, and no row or column is."""
    half = (torch.arange(64).view(8, 8) + torch.arange(8).unsqueeze(1)) % 2 == 0
    half[3] = False  # a whole row, which is reported for itself
    report = passes.shrink(passes.trace(Feeder(), torch.randn(2, 8)), {"first.weight": half}).report
    assert (report.scattered.zeros, report.scattered.entries) == (28, 128)
    line = next(line for line in str(report).splitlines() if line.startswith("scattered zeros: 28 of 128"))
    assert "(22%)" in line
    assert "only whole rows and columns can go" in line
    few = torch.ones(8, 8, dtype=torch.bool)
    few[0, 0] = False
    report = passes.shrink(passes.trace(Feeder(), torch.randn(2, 8)), {"first.weight": few}).report
    assert report.scattered.zeros == 1
    assert "scattered" not in str(report)


def test_what_stays_for_the_same_reason_is_said_once() -> None:
    masks = {"first.weight": rows(8, 8, [1, 2]), "second.weight": rows(8, 8, [5])}
    report = passes.shrink(passes.trace(Feeder(), torch.randn(2, 8)), masks).report
    assert dict(report.pinned) == dict.fromkeys(
        ("first.weight[0] (2 of 8)", "second.weight[0] (1 of 8)"), "pinned: normalised by layer_norm"
    )
    assert [line for line in str(report).splitlines() if line.startswith("kept")] == [
        "kept although zero: 3 rows and columns of 2 weights, such as first.weight[0] (2 of 8): "
        "pinned: normalised by layer_norm"
    ]


def test_details_have_every_place_and_kinds_the_sums() -> None:
    masks = {"first.weight": rows(8, 8, [1, 2]), "second.weight": rows(8, 8, [5])}
    report = passes.shrink(passes.trace(Feeder(), torch.randn(2, 8)), masks).report
    (kind,) = report.kinds
    assert (kind.count, kind.weights) == (3, 2)
    assert report.details().splitlines()[-2:] == [
        "  first.weight[0] (2 of 8): pinned: normalised by layer_norm",
        "  second.weight[0] (1 of 8): pinned: normalised by layer_norm",
    ]
    assert repr(report).startswith("ShrinkReport(parameters 176 → 176, apart by ")
    assert "\n" not in repr(report)
    assert "<li>first.weight[0] (2 of 8): pinned" in report._repr_html_()
    hostile = replace(report, kept=(Kept("<b>", 0, 1, 2, "&"),))
    assert "<li>&lt;b&gt;[0] (1 of 2): &amp;</li>" in hostile._repr_html_()
