"""Backward analysis: which channels some output of the graph depends on."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.ir.sizes import tensor_inputs, tensor_of
from passes.ops.facts import fact_shape
from passes.ops.table import rule_for


class Liveness:
    """Live channels of every value of ``constants.graph_module``.

    ``live[node]`` is a bool tensor of the value's fact shape. Parameters read by something other than a linear
    product (biases aside) have a fact too; a weight matrix lives with the axes it is tied to.
    """

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.live: dict[fx.Node, torch.Tensor] = {}
        for node in reversed(list(constants.graph_module.graph.nodes)):
            if node.op == "output":
                for source in tensor_inputs(node):
                    self._add(source, torch.ones((), dtype=torch.bool).expand(fact_shape(source)))
            elif node.op == "call_function" and _is_tuple(node):
                self._spread_tuple(node)
            elif node.op == "call_function" and tensor_of(node) is not None:
                self._spread(node)

    def of(self, node: fx.Node) -> torch.Tensor:
        """Live channels of a value; a value nobody reads has none."""
        found = self.live.get(node)
        return torch.zeros((), dtype=torch.bool).expand(fact_shape(node)) if found is None else found

    def _add(self, node: fx.Node, reads: torch.Tensor) -> None:
        known = self.live.get(node)
        reads = reads.expand(fact_shape(node))
        self.live[node] = reads if known is None else known | reads

    def _spread(self, node: fx.Node) -> None:
        live_out = self.of(node)
        if not bool(live_out.any()):
            return
        for source, reads in rule_for(node).live(node, live_out, self.constants).items():
            self._add(source, reads)

    def _spread_tuple(self, node: fx.Node) -> None:
        """An operator with several results has no rule: all of its inputs live if any result does."""
        if any(bool(self.of(user).any()) for user in node.users if tensor_of(user) is not None):
            for source in tensor_inputs(node):
                self._add(source, torch.ones((), dtype=torch.bool).expand(fact_shape(source)))


def _is_tuple(node: fx.Node) -> bool:
    value: Any = node.meta.get("val")
    return isinstance(value, tuple | list)
