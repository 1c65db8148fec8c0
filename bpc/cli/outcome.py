"""What a run of `bpc prune` came to: OUT/result.json, from which the table at the end is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpc.bench.comparison import compare
from bpc.cli.training import Run, load_for
from bpc.dense import DenseModel
from bpc.emit.axes import dynamic_axes
from bpc.emit.check import ExportError
from bpc.emit.flops import count_flops
from bpc.emit.onnx import export_onnx, graph_of
from bpc.hub.card import add_measurements
from bpc.inputs import example_inputs
from bpc.report.summary import summarize
from bpc.results import (
    Figure,
    Result,
    arithmetic_figure,
    count,
    result_markdown,
    score_figures,
    size_figures,
    timing_figures,
    with_small,
)
from bpc.results.comparison import Comparison
from bpc.tasks.evaluate import trivial
from bpc.timing.alternate import BenchmarkError
from passes import TraceError
from passes.frontend.trace import exported_program, trace

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, fx, nn

    from bpc.tasks.score import Score

FILE = "small.onnx"
BATCH, LENGTH = 8, 64


class Outcome:
    """The original's figures, taken before it is pruned; `finish` sets the small model's beside them.

    ``rows``: those it learns from; ``original``: its scores, none where it has a new head.
    """

    def __init__(self, run: Run, rows: Dataset, model: nn.Module, original: list[Score]) -> None:
        self.run, self.rows, self.original = run, rows, original
        self.whole = size_figures(model, None)

    def finish(
        self,
        dense: DenseModel,
        drawn: tuple[fx.GraphModule, Mapping[str, Tensor]],
        source: Path,
        out: Path,
        about: dict[str, Any],
        inputs: dict[str, str],
        details: dict[str, Any],
        *,
        timed: bool,
    ) -> Result:
        """Measure the small model, write OUT/result.json and what was measured to OUT/small's card.

        ``drawn``: the original's graph, and masks of what is left of it; ``source``: its directory. ``about``: what the
        run was started with; ``inputs``: {data, weights: their sha256}; ``details``: of the way. ``timed``: write
        OUT/small.onnx and time both; else their arithmetic is counted.
        """
        notes, held_out = [], self.run.held_out
        small = self.run.scores(dense.module)
        baseline = [] if held_out is None else trivial(self.run.task, self.rows, held_out)
        sample = None if held_out is None else f"{len(held_out):,} examples, sha256 {inputs['held out']}"
        figures = score_figures(self.original, small, baseline, sample)
        figures += with_small(self.whole, dense.module)
        left = summarize(*drawn)
        for name, (after, before) in (("heads", left.units(attention=True)), ("FFN dims", left.units(attention=False))):
            if before:
                figures.append(count(name, before, after))
        if held_out is None:
            notes.append("no held-out data (--eval): what pruning costs is not known")
        if timed:
            comparison, why = self._timed(dense, source, out / FILE)
            figures += [] if comparison is None else timing_figures(comparison)
            notes += [f"not timed: {why}"] if why else []
        else:
            counted, why = _arithmetic(drawn[0], graph_of(dense))
            figures += counted
            notes += [f"arithmetic not counted: {why}"] if why else []
        result = Result(
            command="prune",
            figures=figures,
            settings=about,
            inputs=inputs,
            seeds={"seed": self.run.seed},
            notes=notes,
            details=details,
        )
        result.write(out / "result.json")
        add_measurements(out / "small", result_markdown(result))
        return result

    def _timed(self, dense: DenseModel, source: Path, file: Path) -> tuple[Comparison | None, str]:
        model, _ = load_for(self.run.task, source)
        try:
            graph = trace(model.eval(), example_inputs(model, self.run.task.tokenizer))
            export_onnx(dense, file)
            return compare(graph, file, batch=BATCH, length=LENGTH), ""
        except (ExportError, TraceError, BenchmarkError, ValueError) as error:
            return None, str(error)


def _arithmetic(original: fx.GraphModule, small: fx.GraphModule) -> tuple[list[Figure], str]:
    """Of both, at the sizes at which they would be timed; or why it is not known."""
    try:
        axes = dynamic_axes(original, exported_program(original))
        sizes = {name: size for name, size in (("batch", BATCH), ("sequence", LENGTH)) if name in axes.example}
        before, after = (count_flops(graph, axes, sizes) for graph in (original, small))
    except Exception as error:  # whatever torch thinks of such sizes: a run is not lost for a count
        return [], f"{type(error).__name__}: {error}".partition("\n")[0]
    return [arithmetic_figure(before, after, BATCH, LENGTH)], ""
