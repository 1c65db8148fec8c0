"""The table at the end: what the small model costs and what it still knows, against the dense one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import PreTrainedTokenizerBase

import bpc
import passes
from bpc.bench.comparison import compare
from bpc.bench.result import Comparison
from bpc.scores.structure import live_structure
from bpc.writing import write_text
from examples.tweets.pipeline import Outcome, example_inputs

BATCH, LENGTH = 8, 64
REPEATS = 41


@dataclass(frozen=True)
class Row:
    """One line: both values as text, and how many times smaller (or faster) the small model is, if that makes sense."""

    name: str
    dense: str
    small: str
    ratio: str


@dataclass(frozen=True)
class Results:
    """The table, the timing behind it, and points of accuracy lost (standard errors are in the table)."""

    rows: tuple[Row, ...]
    accuracy_drop: float
    comparison: Comparison


def measure(outcome: Outcome, out: Path, tokenizer: PreTrainedTokenizerBase) -> Results:
    """Export both models the same way, time both files on ONNX Runtime in turns, count the rest."""
    files = (out / "dense.onnx", out / "model.onnx")
    outcome.dense.set_attn_implementation("sdpa")
    bpc.export_onnx(passes.trace(outcome.dense.eval(), example_inputs(tokenizer)), files[0])
    bpc.export_onnx(outcome.small, files[1])
    timing = compare(*files, batch=BATCH, length=LENGTH, repeats=REPEATS)
    masked = [plan.weight for plan in outcome.program.plans]
    weights = tuple(_entries(model, masked) for model in (outcome.dense, outcome.small.module))
    live = live_structure(outcome.program.mask_set, final=True)
    before, after = outcome.dense_accuracy, outcome.small_accuracy
    drop = 100 * (before.value - after.value)
    sizes = tuple(path.stat().st_size / 1e6 for path in files)
    rows = (
        Row(f"accuracy ({before.count:,} tweets)", str(before), str(after), f"{-drop:+.2f} points"),
        Row("encoder parameters", f"{weights[0]:,}", f"{weights[1]:,}", f"{weights[1] / weights[0] - 1:+.1%}"),
        Row("heads", str(sum(live.total_heads)), str(sum(live.heads)), _per_layer(live.heads)),
        Row("FFN dims", f"{sum(live.total_ffn_dims):,}", f"{sum(live.ffn_dims):,}", _per_layer(live.ffn_dims)),
        Row("ONNX file", f"{sizes[0]:.1f} MB", f"{sizes[1]:.1f} MB", f"{sizes[0] / sizes[1]:.2f}×"),
        Row(
            "arithmetic",
            f"{timing.dense_flops / 1e9:.2f} GFLOP",
            f"{timing.small_flops / 1e9:.2f} GFLOP",
            f"{timing.arithmetic_ratio:.2f}×",
        ),
        Row(
            f"ONNX Runtime, {BATCH} × {LENGTH}",
            f"{1e3 * timing.dense.median:.1f} ms",
            f"{1e3 * timing.small.median:.1f} ms",
            f"{timing.speedup:.2f}×",
        ),
        Row("efficiency", "", "", f"{timing.efficiency:.2f}"),
    )
    return Results(rows, drop, timing)


def show(results: Results, console: Console) -> None:
    table = Table(title="all-MiniLM-L6-v2 on tweets")
    for column in ("", "dense", "small", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for row in results.rows:
        table.add_row(row.name, row.dense, row.small, row.ratio)
    console.print(table)
    console.print(str(results.comparison.machine), highlight=False)


def save(results: Results, path: Path) -> None:
    """The table as JSON, written whole or not at all."""
    content = {**asdict(results), "comparison": results.comparison.to_dict()}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


def _entries(model: nn.Module, weights: Sequence[str]) -> int:
    """Entries of the named weights; those that are gone count nothing."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return sum(parameters[name].numel() for name in weights if name in parameters)


def _per_layer(counts: Sequence[int]) -> str:
    return " ".join(str(count) for count in counts)
