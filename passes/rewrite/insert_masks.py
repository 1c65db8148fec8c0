"""W  ->  mask(W)

Every use of a masked parameter reads it through an explicit node, ``block_masks.<parameter name>``, that calls the mask
module; the printed graph shows it. A parameter used several times (shared layers, tied weights) is masked once.

Preconditions: the parameter exists in the graph, under any of its tied names, and is not masked by another module.
Postconditions: no node but the mask reads the parameter. The modules are the caller's objects: they train.
Refusals: unknown names, two masks for one parameter.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx, nn

from passes.ir.graph import copy_graph
from passes.ir.info import trace_info
from passes.ir.manager import Pass, PassResult

PREFIX = "block_masks"


class MaskInsertionError(ValueError):
    """A mask that cannot be put in front of its parameter; the message names both."""


@dataclass(frozen=True)
class InsertMasks(Pass):
    """``masks``: {parameter name: module that maps the parameter to its masked value}."""

    masks: Mapping[str, nn.Module]
    name: str = field(default="insert-masks", init=False)

    def requires(self, graph_module: fx.GraphModule) -> None:
        _resolve(graph_module, self.masks)

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        masks = _resolve(graph_module, self.masks)
        present = dict(graph_module.named_modules(remove_duplicate=False))
        fresh = {name: mask for name, mask in masks.items() if present.get(_target(name)) is not mask}
        if not fresh:
            return PassResult(graph_module, False)
        result = copy_graph(graph_module)
        for name, mask in fresh.items():
            _insert(result, name, mask)
        result.recompile()
        return PassResult(result, True, {"masks": len(fresh)})


@dataclass(frozen=True)
class RemoveMasks(Pass):
    """mask(W)  ->  W, for every inserted mask: the plain graph, with the unmasked parameters."""

    name: str = field(default="remove-masks", init=False)

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        if not any(_is_mask(node) for node in graph_module.graph.nodes):
            return PassResult(graph_module, False)
        result = copy_graph(graph_module)
        masks = [node for node in result.graph.nodes if _is_mask(node)]
        for node in masks:
            node.replace_all_uses_with(node.all_input_nodes[0])
            result.graph.erase_node(node)
        result.delete_all_unused_submodules()
        result.recompile()
        return PassResult(result, True, {"masks": len(masks)})


def insert_masks(graph_module: fx.GraphModule, masks: Mapping[str, nn.Module]) -> fx.GraphModule:
    """A copy of the graph in which each named parameter goes through its mask. Raises `MaskInsertionError`."""
    return InsertMasks(masks).run(graph_module).graph_module


def remove_masks(graph_module: fx.GraphModule) -> fx.GraphModule:
    """The graph without its mask nodes; parameters keep their unmasked values."""
    return RemoveMasks().run(graph_module).graph_module


def _target(parameter: str) -> str:
    return f"{PREFIX}.{parameter}"


def _is_mask(node: fx.Node) -> bool:
    """Our own naming: mask modules live under one prefix in the graph module."""
    return node.op == "call_module" and str(node.target).startswith(f"{PREFIX}.")


def _insert(graph_module: fx.GraphModule, name: str, mask: nn.Module) -> None:
    graph = graph_module.graph
    reads = [node for node in graph.nodes if node.op == "get_attr" and node.target == name]
    users = {user for node in reads for user in node.users}
    first = next(node for node in graph.nodes if node in users)
    graph_module.add_submodule(_target(name), mask)
    with graph.inserting_before(first):
        masked = graph.call_module(_target(name), (reads[0],))
    masked.meta = dict(reads[0].meta)
    for node in reads:
        node.replace_all_uses_with(masked, delete_user_cb=lambda user: user is not masked)


def _resolve(graph_module: fx.GraphModule, masks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """``masks`` under the names the graph reads parameters by. Raises `MaskInsertionError`."""
    used = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr" and node.users}
    inserted = {str(node.target) for node in graph_module.graph.nodes if _is_mask(node)}
    aliases = trace_info(graph_module).aliases
    resolved: dict[str, nn.Module] = {}
    for given, mask in masks.items():
        name = aliases.get(given, given)
        if name not in used:
            close = difflib.get_close_matches(given, [*used, *aliases])
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise MaskInsertionError(f"the graph reads no parameter {given!r}{hint}")
        if name in resolved and resolved[name] is not mask:
            raise MaskInsertionError(f"two different masks for {name!r}, which is tied to {given!r}; give one")
        if _target(name) in inserted and graph_module.get_submodule(_target(name)) is not mask:
            raise MaskInsertionError(f"{name!r} is masked already, by another module; remove_masks() first")
        resolved[name] = mask
    return resolved
