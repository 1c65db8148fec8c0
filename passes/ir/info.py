"""What a traced graph carries beside its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

META_KEY = "bpc_trace"


class TraceError(RuntimeError):
    """The model cannot be traced; the message names the line of the model and what to do."""


class InputError(RuntimeError):
    """Inputs that a traced graph does not hold for; the message names the input, its dim and what it may be.

    A RuntimeError, as what torch raises for shapes that do not fit.
    """


@dataclass(frozen=True)
class Guard:
    """What a graph takes for granted of its inputs.

    ``condition`` and ``given`` are Python over ``{0}``, ``{1}``, …, the flat inputs: what must hold, and the value to
    show where it does not; ``message`` says to the user what must hold.
    """

    condition: str
    message: str
    given: str

    def holds(self, inputs: Sequence[Any]) -> bool:
        """Whether flat inputs are such."""
        names = [f"input_{position}" for position in range(len(inputs))]
        return bool(eval(self.condition.format(*names), {"torch": torch}, dict(zip(names, inputs, strict=True))))


@dataclass(frozen=True)
class TraceInfo:
    """What `trace` knows beside the graph; kept in ``graph_module.meta`` and carried along by every pass.

    ``args``/``kwargs`` are the example inputs the graph was traced with (batch and sequence at least 2);
    ``dynamic_shapes`` is torch.export's argument of that name; ``aliases`` maps every name of a tied parameter to
    the name the graph uses; ``guards`` are what the model's own branches on sizes leave of all inputs. ``reference`` is
    torch.export's own module, before anything was done to it (see `passes.frontend.reference`): of a traced graph
    only, a rewritten one has none. ``baked`` names the parameters that are computed in it (see `BakeWeights`).
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any
    aliases: dict[str, str] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    baked: tuple[str, ...] = ()
    reference: fx.GraphModule | None = field(default=None, repr=False)


def trace_info(graph_module: fx.GraphModule) -> TraceInfo:
    """The `TraceInfo` of a traced graph. Raises ValueError for a graph that `trace` did not make."""
    info: TraceInfo | None = graph_module.meta.get(META_KEY)
    if info is None:
        raise ValueError("this GraphModule carries no trace information; obtain it from passes.trace(model, inputs)")
    return info


def without_reference(meta: Mapping[Any, Any]) -> dict[Any, Any]:
    """The metadata of a graph that no longer computes from the parameters that the traced one had."""
    info: TraceInfo | None = meta.get(META_KEY)
    return {**meta, META_KEY: replace(info, reference=None)} if info is not None and info.reference else dict(meta)
