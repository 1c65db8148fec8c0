"""Figures of what bpc measures: sizes, scores, times, differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from bpc.results.comparison import Comparison
from bpc.results.result import Figure, Result, ResultError, Unit, Value
from bpc.tasks.score import Score

if TYPE_CHECKING:
    from bpc.streaming.layers import Layers
    from bpc.streaming.whole import Whole
    from passes.verify.compare import Agreement


def size_figures(original: torch.nn.Module | None, small: torch.nn.Module | None) -> list[Figure]:
    """Parameters, and bytes of them."""
    models = [None if m is None else [(p.numel(), p.element_size()) for p in m.parameters()] for m in (original, small)]
    counts = [None if m is None else sum(n for n, _ in m) for m in models]
    held = [None if m is None else sum(n * size for n, size in m) for m in models]
    return [count("parameters", counts[0], counts[1]), count("bytes of parameters", held[0], held[1], "bytes")]


def with_small(figures: Sequence[Figure], small: torch.nn.Module) -> list[Figure]:
    """Sizes that were taken of the original before it was pruned, with the small model's."""
    after = size_figures(None, small)
    return [before.model_copy(update={"small": other.small}) for before, other in zip(figures, after, strict=True)]


def agreement_figures(agreement: Agreement | None) -> list[Figure]:
    """How far the masked and the small model were apart, where both were run."""
    if agreement is None:
        return []
    apart = Value(value=agreement.max_abs_diff)
    return [Figure(name="largest difference from the masked model", unit="1", small=apart, better="lower")]


def layer_figures(layers: Layers | None, whole: Whole | None = None) -> list[Figure]:
    """How far sampled layers were apart, where they were compared instead of whole models; and those, where they ran a
    layer at a time."""
    found = []
    if layers is not None and layers.compared:
        found.append(("a layer", layers.worst, f"{len(layers.compared)} layers on random inputs"))
    if whole is not None and whole.worst is not None:
        found.append(("an output", whole.worst, f"random inputs {whole.on}"))
    return [
        Figure(
            name=f"largest difference of {what}, in units of what rounding costs it",
            unit="1",
            small=Value(value=worst),
            better="lower",
            sample=sample,
        )
        for what, worst, sample in found
    ]


def count(name: str, original: float | None, small: float | None, unit: Unit = "count") -> Figure:
    """How many, or how large; fewer is better."""
    before, after = (None if number is None else Value(value=number) for number in (original, small))
    return Figure(name=name, unit=unit, original=before, small=after, better="lower")


def score_figures(
    original: Sequence[Score], small: Sequence[Score], trivial: Sequence[Score] = (), sample: str | None = None
) -> list[Figure]:
    """A task's metrics; ``trivial``: of an answer that ignores the input, which stands where the small model's does."""
    figures = []
    for i, score in enumerate(small or original):
        before, after = (_value(scores[i]) if i < len(scores) else None for scores in (original, small))
        figures.append(_metric(score, score.name, sample, before, after))
    for score in trivial[:1]:
        figures.append(_metric(score, f"{score.name}, same answer to all", sample, None, _value(score)))
    return figures


def _value(score: Score) -> Value:
    return Value(value=score.value, standard_error=score.standard_error)


def _metric(score: Score, name: str, sample: str | None, original: Value | None, small: Value | None) -> Figure:
    return Figure(
        name=name,
        unit="share" if score.share else "1",
        original=original,
        small=small,
        better="higher" if score.higher_is_better else "lower",
        sample=sample,
    )


def timing_figures(comparison: Comparison) -> list[Figure]:
    """Time, arithmetic and how much of the one followed the other."""
    c = comparison
    workload: dict[str, str | int | float] = {
        "runtime": c.runtime,
        "dtype": c.dtype,
        "batch": c.batch,
        "length": c.length,
        "threads": c.machine.threads,
        "clock": c.clock,
    }
    where = c.machine.gpu or c.machine.cpu
    before, after = (Value(value=side.median, raw=list(side.seconds)) for side in (c.dense, c.small))
    return [
        Figure(name="time", unit="s", original=before, small=after, better="lower", sample=where, workload=workload),
        arithmetic_figure(c.dense_flops, c.small_flops, c.batch, c.length),
        Figure(
            name="speed-up over arithmetic",
            unit="ratio",
            small=Value(value=c.efficiency),
            better="higher",
            sample=where,
            workload=workload,
        ),
    ]


def arithmetic_figure(original: int, small: int, batch: int, length: int) -> Figure:
    """FLOPs of one forward pass."""
    before, after = (Value(value=float(flops)) for flops in (original, small))
    shape: dict[str, str | int | float] = {"batch": batch, "length": length}
    return Figure(name="arithmetic", unit="FLOP", original=before, small=after, better="lower", workload=shape)


def bench_result(found: Sequence[Comparison], settings: dict[str, Any], inputs: dict[str, str]) -> Result:
    """What was timed, as a result; `comparisons_of` reads it back."""
    return Result(
        command="bench",
        figures=[figure for comparison in found for figure in timing_figures(comparison)],
        settings=settings,
        inputs=inputs,
        details={"comparisons": [comparison.to_dict() for comparison in found]},
    )


def comparisons_of(result: Result) -> list[Comparison]:
    """The comparisons of `bench_result`. Raises `ResultError` for a result of another command."""
    try:
        return [Comparison.from_dict(data) for data in result.details["comparisons"]]
    except (LookupError, TypeError, ValueError) as error:
        raise ResultError(f"a result of bpc {result.command} has no timings that can be drawn: {error}") from error
