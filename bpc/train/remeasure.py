"""A speed-up that is asked for, looked at again while masks fall: prices are estimates, what they leave can be timed.

Twice: when half of the way is behind, so that the rest of it goes to the right place, and before masks are frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelerate.utils import broadcast_object_list

from bpc.oneshot.costs import CLOSE, ROUNDS, measured_speedup
from bpc.oneshot.target import Target

if TYPE_CHECKING:
    from bpc.program import Program

HALFWAY = 0.5  # of the schedule's c: by its cubic, seven eighths of the cost that goes has gone


def remeasure(program: Program, progress: float, *, measures: bool) -> str:
    """Correct a program's prices by the time of what would be compiled now, where that is due; what to tell of it.

    ``measures``: whether this process does; the others are told by it. A measurement that fails leaves the prices.
    """
    budget, target = program.mask_set.budget, program.target
    if budget is None or target is None or target.speedup is None or budget.is_frozen:
        return ""
    remaining = program.mask_set.settings.schedule.remaining(progress)
    if remaining > HALFWAY or (remaining > 0 and int(budget.measured) > 0):
        return ""
    told = ""
    for _ in range(ROUNDS if remaining == 0 else 1):
        found: list[float | str] = [_measured(program, target) if measures else ""]
        broadcast_object_list(found)
        budget.measured += 1
        if isinstance(found[0], str):
            return f"the speed-up could not be measured again: {found[0]}"
        speedup = found[0]
        told = f"measured {speedup:.2f}× where the prices say {budget.costs().total() / budget.cost(final=True):.2f}×"
        if abs(speedup / target.speedup - 1) <= CLOSE:
            break
        if not budget.correct(1 / speedup):
            return f"{told}; what the spec masks does not reach {target.speedup:g}×, so prices stay as they are"
    return told


def _measured(program: Program, target: Target) -> float | str:
    masks = {name: mask.cpu() for name, mask in program.masks().items()}
    try:
        return measured_speedup(program.plain_graph(), masks, target)
    except Exception as error:  # hours of training are worth more than a second look at the clock
        return f"{type(error).__name__}: {error}"
