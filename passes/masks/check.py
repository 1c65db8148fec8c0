"""Whether masks fit a traced graph; every refusal names the parameter, and nothing is written before all fit."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import fx

from passes.ir.graph import get_attribute
from passes.ir.info import trace_info


class MaskError(ValueError):
    """A mask does not fit the model; the message names the parameter."""


def parameter_shapes(graph_module: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    """{name: shape} of everything the graph reads, tied parameters under each of their names."""
    used = dict.fromkeys(str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr")
    tensors = {name: get_attribute(graph_module, name) for name in used}
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if isinstance(t, torch.Tensor)}
    aliases = trace_info(graph_module).aliases
    return shapes | {name: shapes[canonical] for name, canonical in aliases.items() if canonical in shapes}


class CheckedMasks(Mapping[str, torch.Tensor]):
    """Masks under the names a graph reads parameters by, each read from where they come from when it is asked for."""

    def __init__(self, masks: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> None:
        self._masks, self._names = masks, names  # {the graph's name: the name it was given under}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._masks[self._names[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def check_masks(graph_module: fx.GraphModule, masks: Mapping[str, torch.Tensor]) -> CheckedMasks:
    """Masks under the names the graph reads parameters by; one of ``masks`` is in memory at a time.

    Raises `MaskError` for unknown names, for masks that are no bool tensors of the parameter's shape, and for a tied
    parameter that is not masked alike under each of its names: masking one of them alone would cut the others too.
    """
    aliases, shapes = trace_info(graph_module).aliases, parameter_shapes(graph_module)
    checked: dict[str, str] = {}
    for name in masks:
        if name not in shapes:
            raise MaskError(f"mask for {name!r}: the traced model has no parameter of that name{hint(name, shapes)}")
        mask = masks[name]
        if not isinstance(mask, torch.Tensor) or mask.dtype is not torch.bool:
            kind = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise MaskError(f"mask for {name!r} is {kind}; pass a bool tensor, True where the weight is kept")
        if tuple(mask.shape) != shapes[name]:
            raise MaskError(f"mask for {name!r} has shape {tuple(mask.shape)}; the parameter has {shapes[name]}")
        canonical = aliases.get(name, name)
        if canonical in checked and not torch.equal(masks[checked[canonical]], mask):
            raise MaskError(
                f"mask for {name!r} disagrees with that of {canonical!r}, which is the same (tied) parameter"
            )
        checked[canonical] = name
    _check_ties(aliases, masks)
    return CheckedMasks(masks, checked)


def _check_ties(aliases: Mapping[str, str], masks: Collection[str]) -> None:
    names: dict[str, list[str]] = {}
    for name, canonical in aliases.items():
        names.setdefault(canonical, []).append(name)
    for name in masks:
        others = [other for other in names.get(aliases.get(name, name), []) if other not in masks]
        if others:
            raise MaskError(
                f"mask for {name!r}: the parameter is tied to {', '.join(map(repr, others))}, which the mask would cut "
                "too; pass the same mask under every name if that is meant"
            )


def hint(name: str, known: Mapping[str, object]) -> str:
    """What the user may have meant: the parameter whose name ends alike, or the most similar one."""
    ending = [k for k in known if k.endswith("." + name) or name.endswith("." + k)]
    close = ending or difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f" (it has {', '.join(sorted(known)[:3])}, …)"
