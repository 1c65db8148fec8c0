"""Why a module holds more parameters than the small graph, in words."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

_NAMED = 3


def surplus(module: nn.Module, graph: Mapping[str, int], aliases: Mapping[str, str]) -> str:
    """What ``module`` holds beyond ``graph``, {parameter: entries}; empty where it is nothing.

    ``aliases``: names of tied parameters. Either a graph has lost a tensor altogether, because its sublayer died (a
    module's forward runs it all the same, with one zero head or dim) or because no output that was traced reads it; or
    the module's forward needs more of it.
    """
    own = {aliases.get(name, name): parameter.numel() for name, parameter in module.named_parameters()}
    lost = {name: size for name, size in own.items() if name not in graph and size}
    longer = {name: size - graph[name] for name, size in own.items() if name in graph and size > graph[name]}
    if not lost and not longer:
        return ""
    clauses = ((lost, "its forward runs what the graph has lost"), (longer, "its forward needs more of a weight"))
    parts = [f"{sum(held.values()):,} because {why} ({_owners(held)})" for held, why in clauses if held]
    return f"{sum(lost.values()) + sum(longer.values()):,} more than the graph: {', '.join(parts)}"


def _owners(names: Mapping[str, int]) -> str:
    owners = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    return ", ".join(owners[:_NAMED]) + (f" and {len(owners) - _NAMED} more" if len(owners) > _NAMED else "")
