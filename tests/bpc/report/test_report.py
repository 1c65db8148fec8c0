from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from torch import Tensor, fx, nn
from transformers import BertConfig, BertModel

import passes
from bpc.report.curves import curves_figure, read_log
from bpc.report.document import write_report
from bpc.report.picture import _image, pattern_figure
from bpc.report.summary import Summary, summarize
from bpc.report.table import pruning_table, rows

HEADS, DIM, FFN = 4, 8, 24


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=32, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=FFN,
        max_position_embeddings=16,
    )  # fmt: skip
    return passes.trace(BertModel(config, add_pooling_layer=False).eval(), {"input_ids": torch.arange(12).view(2, 6)})


@pytest.fixture(scope="module")
def masks() -> dict[str, Tensor]:
    """Layer 0: heads 1 and 2 live, half of their value weights pruned; FFN dims 0-4 live. Layer 1: untouched."""
    live = torch.zeros(HEADS, dtype=torch.bool)
    live[1:3] = True
    rows = live.repeat_interleave(DIM)
    attention = {f"encoder.layer.0.attention.self.{n}": rows for n in ("query", "key", "value")}
    found = {f"{n}.weight": r[:, None].expand(32, 32).clone() for n, r in attention.items()}
    found |= {f"{n}.bias": r for n, r in attention.items()}
    found["encoder.layer.0.attention.self.value.weight"][:, 16:] = False
    dims = torch.arange(FFN) < 5
    found["encoder.layer.0.intermediate.dense.weight"] = dims[:, None].expand(FFN, 32).clone()
    found["encoder.layer.0.intermediate.dense.bias"] = dims
    found["encoder.layer.0.output.dense.weight"] = dims.expand(32, FFN).clone()
    return found


@pytest.fixture(scope="module")
def result(graph: fx.GraphModule, masks: dict[str, Tensor]) -> passes.ShrinkResult:
    return passes.shrink(graph, masks)


@pytest.fixture(params=["compiled", "estimated"])
def summary(
    request: pytest.FixtureRequest, graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult
) -> Summary:
    return summarize(graph, masks, result.plan if request.param == "compiled" else None)


def test_units_and_weights_are_counted(summary: Summary) -> None:
    assert [(b.units_left, b.units) for b in summary.blocks] == [(2, 4), (5, 24), (4, 4), (24, 24)]
    attention, ffn, *untouched = summary.blocks
    assert attention.parameters == 4 * 32 * 32
    assert attention.parameters_kept == 2 * 32 * 16 + 16 * 16 + 32 * 32  # the output projection has no mask
    assert attention.parameters_present == 4 * 32 * 16
    assert (ffn.parameters_kept, ffn.parameters_present) == (2 * 32 * 5, 2 * 32 * 5)
    assert all(b.parameters_kept == b.parameters_present == b.parameters for b in untouched)


def test_present_is_what_the_small_model_has(
    graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult
) -> None:
    small = sum(
        p.numel() for n, p in result.graph_module.named_parameters() if p.dim() == 2 and n.startswith("encoder.")
    )
    assert sum(b.parameters_present for b in summarize(graph, masks, result.plan).blocks) == small


def test_without_masks_the_zeros_of_the_weights_count(graph: fx.GraphModule) -> None:
    assert [b.units_left for b in summarize(graph, None).blocks] == [4, 24, 4, 24]


def test_a_block_that_died_has_nothing_left(graph: fx.GraphModule) -> None:
    dead = {"encoder.layer.1.output.dense.weight": torch.zeros(32, FFN, dtype=torch.bool)}
    plan = passes.shrink(graph, dead).plan
    assert [b.units_left for b in summarize(graph, dead, plan).blocks] == [4, 24, 4, 0]


def test_table_ends_with_the_totals(summary: Summary) -> None:
    assert rows(summary)[0][:3] == ("0", "2 / 4", "5 / 24")
    assert rows(summary)[-1][:3] == ("all", "6 / 8", "29 / 48")


def test_no_digit_is_lost_on_a_narrow_terminal(summary: Summary) -> None:
    console = Console(width=36, file=io.StringIO(), color_system=None)
    console.print(pruning_table(summary))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown


def test_picture_shows_heads_in_three_colours(graph: fx.GraphModule, masks: dict[str, Tensor]) -> None:
    value = next(m for m in summarize(graph, masks).layers[0].attention.matrices if m.title == "value")  # type: ignore[union-attr]
    image = _image(value)  # hidden down, heads across
    assert image.shape == (32, 32, 3)
    blue, yellow, grey = image[0, 8], image[31, 8], image[0, 0]
    assert len({tuple(np.round(c, 3)) for c in (blue, yellow, grey)}) == 3
    assert np.allclose(image[:16, 8:24], blue)
    assert np.allclose(image[16:, 8:24], yellow)
    assert np.allclose(image[:, 24:], grey)


def test_nothing_to_draw_is_said() -> None:
    graph = passes.trace(nn.Linear(3, 3).eval(), torch.randn(2, 3))
    with pytest.raises(ValueError, match="no attention and no FFN"):
        pattern_figure(summarize(graph, None))


HISTORY = [
    {"step": 10, "loss": 2.0, "density": 0.9, "threshold": 0.02, "heads": 8},
    {"step": 20, "loss": 1.0, "density": 0.5, "threshold": 0.10, "heads": 4},
    {"step": 20, "eval_loss": 1.5},
]


def test_curves_show_what_was_logged() -> None:
    density, heads, loss = curves_figure(HISTORY).axes  # no FFN dims in this log: no panel for them
    assert list(density.lines[0].get_ydata()) == [0.9, 0.5]
    assert list(heads.lines[0].get_ydata()) == [8, 4]
    assert [tick for tick in heads.get_yticks() if tick % 1] == []
    assert [list(line.get_xdata()) for line in loss.lines] == [[10, 20], [20]]
    with pytest.raises(ValueError, match=r"bpc\.Trainer"):
        curves_figure([{"step": 1}])


def test_report_is_complete_on_disk(
    graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult, tmp_path: Path
) -> None:
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": HISTORY}))
    path = write_report(tmp_path / "report", graph, masks, result, history=read_log(tmp_path), title="Tiny")
    text = path.read_text()
    assert "| all | 6 / 8 | 29 / 48 |" in text
    assert "verified: largest difference" in text
    assert sorted(p.name for p in path.parent.iterdir()) == ["pattern.png", "report.md", "training.png"]
    assert imread(path.parent / "pattern.png").std() > 0.05
