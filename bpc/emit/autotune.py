"""Choosing a recipe by measuring: the parts of a recipe one after the other, each form against the others.

Greedy, because the parts hardly interact and the product of all forms is large. A form must win by a margin: on a draw
the shipped default stays, so that two machines that differ in noise only get one file.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from bpc.emit import recipe as recipes
from bpc.emit.recipe import CHOICES, Recipe
from bpc.emit.storage import write
from bpc.timing.alternate import Worker, alternate, available_threads
from bpc.timing.feed import random_feed

MARGIN = 0.02
DEFAULT_SHAPES = ((8, 128), (1, 128))


@dataclass(frozen=True)
class Trial:
    """One measured recipe: seconds relative to the recipe it was compared with (geometric mean over the shapes)."""

    recipe: Recipe
    relative_time: float


@dataclass(frozen=True)
class Tuning:
    """The chosen recipe and everything that was measured on the way."""

    recipe: Recipe
    trials: tuple[Trial, ...]
    shapes: tuple[tuple[int, int], ...]
    threads: int

    def to_json(self) -> str:
        """One line of JSON, for the file's metadata."""
        return json.dumps(asdict(self))


def tune(
    model: ir.Model,
    start: Recipe,
    *,
    shapes: Sequence[tuple[int, int]] = DEFAULT_SHAPES,
    threads: int | None = None,
    repeats: int = 7,
) -> Tuning:
    """Measure the forms of every part of ``start`` on the CPU provider and keep the fastest.

    ``model`` is the plain export (`bpc.emit.onnx.to_onnx`, with its metadata) and is not changed. ``shapes`` are
    (batch, length) pairs, all of equal weight. Takes minutes for a base-size model.
    """
    threads = threads or available_threads()
    best, trials = start, []
    for part in CHOICES:
        variants = best.variants(part)
        times = _relative_times(model, variants, shapes, threads, repeats)
        trials += [Trial(v, t) for v, t in zip(variants, times, strict=True)]
        fastest = min(range(len(variants)), key=times.__getitem__)
        if times[fastest] < 1 - MARGIN:
            best = variants[fastest]
    return Tuning(best, tuple(trials), tuple(shapes), threads)


def _relative_times(
    model: ir.Model, variants: Sequence[Recipe], shapes: Sequence[tuple[int, int]], threads: int, repeats: int
) -> list[float]:
    """Time of each variant over the first's: the geometric mean over the shapes."""
    logs: list[list[float]] = [[] for _ in variants]
    with tempfile.TemporaryDirectory(prefix="bpc-tune-") as name:
        folder = Path(name)
        for index, variant in enumerate(variants):
            copy = model.clone()
            recipes.apply(variant, copy)
            write(copy, folder, f"{index}.onnx")
        for batch, length in shapes:
            inputs = folder / f"{batch}x{length}.npz"
            np.savez(inputs, allow_pickle=False, **random_feed(model, batch, length))
            with contextlib.ExitStack() as stack:
                command = {"kind": "onnx", "inputs": str(inputs), "threads": threads}
                workers = [
                    stack.enter_context(Worker(str(i), {**command, "path": str(folder / f"{i}.onnx")}))
                    for i in range(len(variants))
                ]
                medians = [timing.median for timing in alternate(workers, repeats=repeats)]
            for log, median in zip(logs, medians, strict=True):
                log.append(median / medians[0])
    return [statistics.geometric_mean(log) for log in logs]
