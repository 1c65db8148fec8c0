"""What a traced graph carries beside its nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


META_KEY = "bpc_trace"


class TraceError(RuntimeError):
    """The model cannot be traced; the message names the line of the model and what to do."""


@dataclass
class TraceInfo:
    """What `trace` knows beside the graph; kept in ``graph_module.meta`` and carried along by every pass.

    ``args``/``kwargs`` are the example inputs the graph was traced with (batch and sequence at least 2);
    ``dynamic_shapes`` is torch.export's argument of that name; ``aliases`` maps every name of a tied parameter to
    the name the graph uses.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any
    aliases: dict[str, str] = field(default_factory=dict)


def trace_info(graph_module: fx.GraphModule) -> TraceInfo:
    """The `TraceInfo` of a traced graph. Raises ValueError for a graph that `trace` did not make."""
    info = graph_module.meta.get(META_KEY)
    if info is None:
        raise ValueError("this GraphModule carries no trace information; obtain it from passes.trace(model, inputs)")
    return info
