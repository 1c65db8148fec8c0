"""Entries of parameters that no operator reads, whatever numbers the weights hold.

    positions[:5]  of  positions [32, d], where the trace fixed the length to the example's

They are dead in the graph, which refuses other lengths. The module has no such guard: without the rows that another
length reads, it would fail there, or broadcast what is left and answer wrongly. So the indices stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.ir.sizes import is_parameter, shape_of, tensor_inputs, tensor_of
from passes.ops.facts import Axis, Fact, along, axis, everything, fact_shape, nothing, nothing_constant
from passes.ops.linear_form import LinearForm
from passes.ops.rule import Kind


def unread_indices(constants: Constants) -> Iterator[tuple[Axis, torch.Tensor]]:
    """(axis of a parameter, its indices of which no entry is read; bool, of its size), where there are any."""
    graph = constants.graph_module.graph
    computed = {n for n in graph.nodes if _is_value(n) and n not in constants.from_inputs}
    dense, reads = _Dense(constants), dict[fx.Node, torch.Tensor]()
    for node in reversed(list(graph.nodes)):
        seen = _reads(node, reads.get(node), dense) if node in computed else {}
        for source in tensor_inputs(node):
            if source in computed or is_parameter(source):
                new = seen.get(source, nothing(source) if node in computed else everything(source))
                reads[source] = reads[source] | new if source in reads else new
    by_name: dict[str, list[fx.Node]] = {}
    for node in reads:
        if is_parameter(node):
            by_name.setdefault(str(node.target), []).append(node)
    for nodes in by_name.values():
        if not any(user in computed for node in nodes for user in node.users):
            continue  # each reader takes it whole
        read = torch.stack([reads[n] for n in nodes]).any(0)
        for dim in range(read.dim()):
            found, left_out = axis(nodes[0], dim), ~along(read, dim)
            if found is not None and bool(left_out.any()):
                yield found, left_out


def _is_value(node: fx.Node) -> bool:
    return node.op == "call_function" and tensor_of(node) is not None


def _reads(node: fx.Node, live_out: torch.Tensor | None, dense: _Dense) -> dict[fx.Node, torch.Tensor]:
    """What a value computed from parameters alone reads of them."""
    if live_out is None or not bool(live_out.any()):
        return {}
    rule = dense.constants.rule(node)
    try:
        live = rule.live(node, live_out, dense)
        live = {s: live[s].expand(fact_shape(s)) if s in live else everything(s) for s in tensor_inputs(node)}
    except Exception:  # a call the rule was not written for reads all
        return {s: everything(s) for s in tensor_inputs(node)}
    if rule.kind is not Kind.VIEW:  # weights of products live by their ties, which say nothing here
        live = {s: found if bool(found.any()) else everything(s) for s, found in live.items()}
    return live


class _Dense:
    """Facts that know no weight: every entry may be anything. Indices and masks are what they are."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants

    def fact(self, node: fx.Node) -> Fact:
        fake = tensor_of(node)
        assert fake is not None
        floats = fake.is_floating_point() or fake.is_complex()
        return nothing_constant(fact_shape(node), fake.dtype) if floats else self.constants.fact(node)

    def weight(self, name: str) -> torch.Tensor | None:
        return None

    def pattern(self, name: str) -> torch.Tensor | None:
        return None

    def folds(self, form: LinearForm) -> torch.Tensor:
        return torch.zeros(shape_of(form.input)[-1], dtype=torch.bool)

    def folded_constants(self, form: LinearForm) -> tuple[torch.Tensor, torch.Tensor]:
        return self.folds(form), torch.zeros(shape_of(form.input)[-1])

    def row_stochastic(self, node: fx.Node) -> bool:
        return False

    def shift_invariant(self, node: fx.Node) -> bool:
        return False
