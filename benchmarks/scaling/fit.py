"""Models of what was measured: sums of few terms, by least squares of relative errors; tested on what they did not see.

    seconds or bytes = Σ coefficient · term,     terms: 1, layers, parameters, FLOPs, …

Every row is divided by what was measured, so that a model is as good, in per cent, for the small as for the large. A
term whose coefficient would be negative is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

Row = Mapping[str, Any]
TERMS: dict[str, Callable[[Row], float]] = {
    "1": lambda row: 1.0,
    "layer": lambda row: row["layers"],
    "parameter": lambda row: row["parameters"],
    "parameter in layers": lambda row: row["in layers"],
    "mask entry": lambda row: row["masked"],
    "FLOP": lambda row: row["flops"],
    "byte saved": lambda row: row["saved bytes"],
}


@dataclass(frozen=True)
class Wanted:
    """One figure to model: ``stage`` of cases of ``kind`` and ``family``, its CPU seconds or its peak, by ``terms``."""

    kind: str
    family: str
    stage: str
    figure: str
    terms: tuple[str, ...]

    def of(self, row: Row) -> float:
        return float(row["stages"][self.stage][self.figure])


@dataclass(frozen=True)
class Model:
    """Coefficients by term; residuals of the fitted cases and of those held out, as shares of what was measured."""

    wanted: Wanted
    coefficients: dict[str, float]
    residuals: dict[str, float]
    held_out: dict[str, float]

    def __call__(self, row: Row) -> float:
        return sum(value * TERMS[term](row) for term, value in self.coefficients.items())

    @property
    def typical(self) -> float:
        """Median size of the residuals."""
        return median(abs(residual) for residual in self.residuals.values())

    @property
    def worst(self) -> float:
        """Largest size of the residuals."""
        return max(abs(residual) for residual in self.residuals.values())


def least_squares(rows: Sequence[Row], values: Sequence[float], terms: Sequence[str]) -> dict[str, float]:
    """Coefficients of ``terms``, none of them negative."""
    kept = list(terms)
    while True:
        table = np.array([[TERMS[term](row) for term in kept] for row in rows]) / np.array(values)[:, None]
        scale = np.abs(table).max(axis=0)  # FLOPs beside ones
        found = np.linalg.lstsq(table / scale, np.ones(len(values)), rcond=None)[0] / scale
        worst = int(np.argmin(found * scale))
        if found[worst] >= 0:
            return dict(zip(kept, map(float, found), strict=True))
        del kept[worst]


def fit(cases: Mapping[str, Row], wanted: Wanted) -> Model:
    """The model of ``wanted``, from all cases of its kind and family but those held out."""
    rows = {key: row for key, row in cases.items() if key.startswith(f"{wanted.kind} {wanted.family} ")}
    seen = {key: row for key, row in rows.items() if not row["held out"]}
    coefficients = least_squares(list(seen.values()), [wanted.of(row) for row in seen.values()], wanted.terms)
    model = Model(wanted, coefficients, {}, {})
    errors = {key: model(row) / wanted.of(row) - 1 for key, row in rows.items()}
    return Model(
        wanted,
        coefficients,
        {key: error for key, error in errors.items() if key in seen},
        {key: error for key, error in errors.items() if key not in seen},
    )


CPU, PEAK = "cpu s", "peak bytes"
COMPILED = ("trace", "analysis", "shrink", "verify", "export")
WANTED = (
    *(
        Wanted("compile", family, stage, CPU, ("1", "layer", "parameter in layers"))
        for family in ("bert", "llama")
        for stage in COMPILED
    ),
    *(Wanted("compile", family, "verify", PEAK, ("1", "layer", "parameter")) for family in ("bert", "llama")),
    Wanted("plan", "llama", "trace", CPU, ("1", "layer", "parameter in layers")),
    Wanted("plan", "llama", "analysis", CPU, ("1", "layer", "mask entry")),
    *(Wanted("step", family, "step", CPU, ("1", "layer", "parameter", "FLOP")) for family in ("bert", "llama")),
    *(Wanted("step", family, "step", PEAK, ("1", "parameter", "byte saved")) for family in ("bert", "llama")),
)


def models(cases: Mapping[str, Row]) -> list[Model]:
    """Every model of the page."""
    return [fit(cases, wanted) for wanted in WANTED]
