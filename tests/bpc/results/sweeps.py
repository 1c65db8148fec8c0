"""Sweeps that nobody ran."""

from __future__ import annotations

from typing import Any

from bpc.results import Value
from bpc.results.sweep import Sweep, Trial


def done(number: int, metric: float, speedup: float, **more: Any) -> Trial:
    return Trial(
        number=number,
        directory=f"trial-{number:03}",
        values={"epochs": number},
        state="done",
        metric=Value(value=metric, standard_error=0.01),
        original=Value(value=0.92),
        speedup=Value(value=speedup, standard_error=0.1),
        **more,
    )


def sweep_of(*trials: Trial, **changes: Any) -> Sweep:
    about: dict[str, Any] = {
        "metric": "accuracy",
        "unit": "share",
        "better": "higher",
        "speed": "time",
        "chosen_on": "choose.csv",
        "workload": {},
        "asked": len(trials),
        "settings": {},
        "inputs": {},
        "seeds": {},
    }
    return Sweep(trials=list(trials), **{**about, **changes})
