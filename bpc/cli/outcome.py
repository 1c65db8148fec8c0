"""What a run came to: one table, and the same as OUT/result.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from torch import nn

from bpc.bench.comparison import compare
from bpc.bench.result import Comparison, this_machine
from bpc.cli.training import Run, load_for
from bpc.dense import DenseModel
from bpc.emit.check import ExportError
from bpc.inputs import example_inputs
from bpc.tasks.evaluate import trivial
from bpc.tasks.score import Score
from bpc.timing.alternate import BenchmarkError
from bpc.writing import write_text
from passes import TraceError
from passes.frontend.trace import trace

if TYPE_CHECKING:
    from datasets import Dataset

SCHEMA = "bpc.result/1"
BATCH, LENGTH = 8, 64


class Outcome:
    """The original's figures, taken before it is pruned; `finish` sets the small model's beside them.

    ``rows``: those it learns from; ``original``: its scores, none where it has a new head.
    """

    def __init__(self, run: Run, rows: Dataset, model: nn.Module, original: list[Score]) -> None:
        self.run, self.rows, self.original = run, rows, original
        self.sizes = _sizes(model)

    def finish(self, dense: DenseModel, source: Path, out: Path, *, timed: bool) -> Table:
        """Measure the small model, write OUT/result.json, and return the table.

        ``source``: directory of the original, which is timed beside it.
        """
        small, sizes = self.run.scores(dense.module), _sizes(dense.module)
        baseline = [] if self.run.held_out is None else trivial(self.run.task, self.rows, self.run.held_out)
        comparison, why = self._timed(dense, source) if timed else (None, "")
        table = Table(title=f"original and small, {self.run.task.name}")
        for column in ("", "original", "small", ""):
            table.add_column(column, justify="right" if column else "left")
        for i, score in enumerate(small):
            before = self.original[i] if self.original else None
            table.add_row(score.name, _shown(before), _shown(score), _difference(before, score))
        if baseline:
            table.add_row(f"{baseline[0].name}, whatever the input", "", _shown(baseline[0]), "")
        for name in ("parameters", "bytes"):
            whole, left = self.sizes[name], sizes[name]
            change = "nothing removed" if left == whole else f"{left / whole - 1:+.1%}"
            table.add_row(name, f"{whole:,}", f"{left:,}", change)
        if comparison is not None:
            table.add_row(
                f"ONNX Runtime, {BATCH} × {LENGTH}",
                f"{1e3 * comparison.dense.median:.1f} ms",
                f"{1e3 * comparison.small.median:.1f} ms",
                f"{comparison.speedup:.2f}×",
            )
            table.add_row("arithmetic", "", "", f"{comparison.arithmetic_ratio:.2f}×")
        if self.run.held_out is None:
            table.caption = "no held-out data (--eval): what pruning costs is not known"
        elif why:
            table.caption = f"not timed: {why}"
        self._write(out, small, baseline, sizes, comparison)
        return table

    def _timed(self, dense: DenseModel, source: Path) -> tuple[Comparison | None, str]:
        model, _ = load_for(self.run.task, source)
        try:
            graph = trace(model.eval(), example_inputs(model, self.run.task.tokenizer))
            return compare(graph, dense, batch=BATCH, length=LENGTH), ""
        except (ExportError, TraceError, BenchmarkError, ValueError) as error:
            return None, str(error)

    def _write(
        self,
        out: Path,
        small: list[Score],
        baseline: list[Score],
        sizes: dict[str, int],
        comparison: Comparison | None,
    ) -> None:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "command": "prune",
            "run": run,
            "spec": json.loads((out / "spec.json").read_text(encoding="utf-8")),
            "examples": {
                "training": len(self.rows),
                "held out": None if self.run.held_out is None else len(self.run.held_out),
            },
            "original": {**self.sizes, "scores": [asdict(score) for score in self.original]},
            "small": {**sizes, "scores": [asdict(score) for score in small]},
            "trivial": [asdict(score) for score in baseline],
            "timing": None if comparison is None else comparison.to_dict(),
            "machine": asdict(this_machine(torch.get_num_threads())),
        }
        write_text(out / "result.json", json.dumps(content, indent=1, ensure_ascii=False))


def _sizes(model: nn.Module) -> dict[str, int]:
    parameters = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def _shown(score: Score | None) -> str:
    return "" if score is None else str(score).removeprefix(score.name).strip()


def _difference(before: Score | None, after: Score) -> str:
    if before is None:
        return ""
    change = after.value - before.value
    return f"{100 * change:+.2f} points" if after.share else f"{change:+.3g}"
