"""The residual width: which channels of a stream a model keeps, said from outside.

    graph = passes.trace(model, inputs)
    z = torch.rand(model.config.hidden_size) < 0.75          # bool, True where a channel is kept
    small = passes.shrink(graph, masks, width=z)

The streams are found in the graph: they are what attentions and FFNs write to. A model with one stream takes one mask;
an encoder and a decoder that share no weight have one each, named by any parameter that lies along it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx

from passes.analysis.width import Narrowing, SharedAxis, Widths
from passes.ir.graph import get_attribute
from passes.ir.info import trace_info
from passes.ir.session import exclusive
from passes.masks import MaskError
from passes.masks.check import hint
from passes.ops.facts import Axis
from passes.structure.role import Family
from passes.structure.roles import find_roles

WidthMask: TypeAlias = torch.Tensor | Mapping[str, torch.Tensor] | None


@dataclass(frozen=True)
class ResidualStream:
    """The channels that attentions and FFNs write to.

    ``size``: how many. ``parameters``: {parameter or buffer: its dims along the stream}. ``refusal``: why it cannot be
    narrowed; None if it can.
    """

    size: int
    parameters: Mapping[str, tuple[int, ...]]
    refusal: str | None = None


@exclusive
def residual_streams(graph_module: fx.GraphModule) -> tuple[ResidualStream, ...]:
    """The residual streams of a traced graph, in its order; those that cannot be narrowed say why."""
    return tuple(ResidualStream(s.size, s.parameters, s.refusal) for s in _streams(graph_module, Widths(graph_module)))


def _streams(graph_module: fx.GraphModule, widths: Widths) -> list[SharedAxis]:
    written = [r for r in find_roles(graph_module) if r.role.leaves and r.role.family in (Family.ATTENTION, Family.FFN)]
    found = (widths.of(Axis(f"@{role.weight}", role.out_dim)) for role in written)
    return list({shared.axes: shared for shared in found if shared is not None}.values())


def resolve_width(graph_module: fx.GraphModule, width: WidthMask) -> Narrowing | None:
    """Checked width masks of a traced graph; None where nothing goes.

    ``width``: a bool tensor (channels,), True = kept, for a model with one stream, or {any parameter along a stream:
    such a tensor}. Raises `MaskError` for masks of another kind or size, a model without a stream or with several, a
    name that lies on none, and a stream that cannot be narrowed.
    """
    if width is None:
        return None
    widths = Widths(graph_module)
    streams = _streams(graph_module, widths)
    if not streams:
        raise MaskError("width: no attention or FFN of the model adds to a residual stream")
    given: dict[int, tuple[str, torch.Tensor]] = {}
    for name, mask in _named(width, streams).items():
        number = _stream_of(name, graph_module, streams)
        shared = streams[number]
        _check(name, mask, shared)
        first, known = given.setdefault(number, (name, mask))
        if not torch.equal(known, mask):
            raise MaskError(f"width: {first!r} and {name!r} lie along one stream and are given different masks")
    kept = [(streams[number], mask.cpu()) for number, (_, mask) in given.items() if not bool(mask.all())]
    return widths.narrowing(kept) if kept else None


def _named(width: WidthMask, streams: list[SharedAxis]) -> Mapping[str, torch.Tensor]:
    if isinstance(width, Mapping):
        return width
    if not isinstance(width, torch.Tensor):
        raise MaskError(f"width is {type(width).__name__}; give a bool tensor, or {{parameter: bool tensor}}")
    if len(streams) > 1:
        one_each = ", ".join(f"{next(iter(s.parameters))} ({s.size})" for s in streams)
        raise MaskError(
            f"width: the model has {len(streams)} residual streams; say which is meant by a parameter along it, such "
            f"as {one_each}: width={{parameter: mask}}"
        )
    return {next(iter(streams[0].parameters)): width}


def _stream_of(name: str, graph_module: fx.GraphModule, streams: list[SharedAxis]) -> int:
    used = trace_info(graph_module).aliases.get(name, name)
    own = [number for number, shared in enumerate(streams) if used in shared.parameters]
    if len(own) == 1:
        return own[0]
    if own:
        raise MaskError(f"width: {name!r} lies along {len(own)} streams; name one that a norm reads alone")
    known = {n: None for shared in streams for n in shared.parameters}
    raise MaskError(f"width: {name!r} is no parameter along a residual stream{hint(name, known)}")


def _check(name: str, mask: torch.Tensor, shared: SharedAxis) -> None:
    if not isinstance(mask, torch.Tensor) or mask.dtype is not torch.bool:
        kind = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise MaskError(f"width of {name!r} is {kind}; pass a bool tensor, True where the channel is kept")
    if tuple(mask.shape) != (shared.size,):
        raise MaskError(f"width of {name!r} has shape {tuple(mask.shape)}; the stream has {shared.size} channels")
    if not bool(mask.any()):
        raise MaskError(f"width of {name!r} keeps no channel")
    if shared.refusal is not None and not bool(mask.all()):
        raise MaskError(f"width: the stream that {name!r} lies along cannot be narrowed: {shared.refusal}")


def with_width(
    graph_module: fx.GraphModule, masks: Mapping[str, torch.Tensor], narrowing: Narrowing
) -> dict[str, torch.Tensor]:
    """``masks``, and those of all parameters and buffers along a narrowed stream: what goes is zero, in each dim."""
    joined = dict(masks)
    for name in dict.fromkeys(str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"):
        tensor = get_attribute(graph_module, name)
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            continue
        for dim, kept in narrowing.of_parameter(name, tensor.dim()).items():
            along = kept.view([-1 if d == dim else 1 for d in range(tensor.dim())]).expand(tensor.shape)
            joined[name] = joined[name] & along if name in joined else along
    return joined


def kept_width(narrowing: Narrowing) -> list[dict[str, Any]]:
    """For certificates: of every narrowed stream the channels that stay, and a parameter along it."""
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    for along, kept in sorted(narrowing.kept.items()):
        if along.value.startswith("@"):
            index = tuple(kept.nonzero().flatten().tolist())
            found.setdefault(index, {"parameter": along.value[1:], "size": len(kept), "kept": list(index)})
    return list(found.values())
