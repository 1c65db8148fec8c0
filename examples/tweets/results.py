"""The table at the end: what the small model costs and what it still knows, against the dense one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import PreTrainedTokenizerBase

import bpc
import passes
from bpc.masks.structure import live_structure
from examples.tweets.pipeline import Outcome, example_inputs
from examples.tweets.timing import count_flops, latencies

BATCH, LENGTH = 8, 64


@dataclass(frozen=True)
class Row:
    """One line: both values as text, and how many times smaller (or faster) the small model is, if that makes sense."""

    name: str
    dense: str
    small: str
    ratio: str


@dataclass(frozen=True)
class Results:
    rows: tuple[Row, ...]
    arithmetic_ratio: float
    speedup: float
    accuracy_drop: float  # points

    @property
    def efficiency(self) -> float:
        """Measured speed-up over what the arithmetic allows (1 is the limit)."""
        return self.speedup / self.arithmetic_ratio


def measure(outcome: Outcome, out: Path, tokenizer: PreTrainedTokenizerBase) -> Results:
    """Export both models the same way, time both files on ONNX Runtime in turns, count the rest."""
    files = (out / "dense.onnx", out / "model.onnx")
    outcome.dense.set_attn_implementation("sdpa")
    bpc.export_onnx(passes.trace(outcome.dense.eval(), example_inputs(tokenizer)), files[0])
    bpc.export_onnx(outcome.small, files[1])
    seconds = latencies(files, BATCH, LENGTH)
    flops = tuple(count_flops(model, BATCH, LENGTH) for model in (outcome.dense, outcome.small.module))

    masked = [plan.weight for plan in outcome.program.plans]
    weights = tuple(_entries(model, masked) for model in (outcome.dense, outcome.small.module))
    live = live_structure(outcome.program.mask_set, final=True)
    before, after = outcome.dense_accuracy, outcome.small_accuracy
    drop = 100 * (before.value - after.value)
    sizes = tuple(path.stat().st_size / 1e6 for path in files)
    arithmetic, speedup = flops[0] / flops[1], seconds[0] / seconds[1]
    rows = (
        Row(f"accuracy ({before.count:,} tweets)", str(before), str(after), f"{-drop:+.2f} points"),
        Row("encoder parameters", f"{weights[0]:,}", f"{weights[1]:,}", f"{weights[1] / weights[0] - 1:+.1%}"),
        Row("heads", str(sum(live.total_heads)), str(sum(live.heads)), _per_layer(live.heads)),
        Row("FFN dims", f"{sum(live.total_ffn_dims):,}", f"{sum(live.ffn_dims):,}", _per_layer(live.ffn_dims)),
        Row("ONNX file", f"{sizes[0]:.1f} MB", f"{sizes[1]:.1f} MB", f"{sizes[0] / sizes[1]:.2f}×"),
        Row("arithmetic", f"{flops[0] / 1e9:.2f} GFLOP", f"{flops[1] / 1e9:.2f} GFLOP", f"{arithmetic:.2f}×"),
        Row(
            f"ONNX Runtime, {BATCH} × {LENGTH}",
            f"{1e3 * seconds[0]:.1f} ms",
            f"{1e3 * seconds[1]:.1f} ms",
            f"{speedup:.2f}×",
        ),
        Row("efficiency", "", "", f"{speedup / arithmetic:.2f}"),
    )
    return Results(rows, arithmetic, speedup, drop)


def show(results: Results, console: Console) -> None:
    table = Table(title="all-MiniLM-L6-v2 on tweets")
    for column in ("", "dense", "small", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for row in results.rows:
        table.add_row(row.name, row.dense, row.small, row.ratio)
    console.print(table)


def save(results: Results, path: Path) -> None:
    """The table as JSON, written whole or not at all."""
    staged = path.with_suffix(".tmp")
    content = {**asdict(results), "efficiency": results.efficiency}
    staged.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    os.replace(staged, path)


def _entries(model: nn.Module, weights: Sequence[str]) -> int:
    """Entries of the named weights; those that are gone count nothing."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return sum(parameters[name].numel() for name in weights if name in parameters)


def _per_layer(counts: Sequence[int]) -> str:
    return " ".join(str(count) for count in counts)
