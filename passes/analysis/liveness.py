"""Backward analysis: which channels some output of the graph depends on."""

from __future__ import annotations

import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.ir.sizes import reads_sizes_only, tensor_inputs, tensor_of
from passes.ops.facts import everything, fact_shape, nothing


class Liveness:
    """Live channels of every value of ``constants.graph_module``.

    ``live[node]`` is a bool tensor of the value's fact shape. An input that an operator's rule does not mention is read
    whole, and so are the inputs of whatever yields no tensor (numbers read from a value, lists of results): what
    becomes of those is not followed. A weight matrix of a linear product lives with the axes it is tied to.
    """

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.live: dict[fx.Node, torch.Tensor] = {}
        for node in reversed(list(constants.graph_module.graph.nodes)):
            if node.op == "call_function" and tensor_of(node) is not None:
                self._spread(node)
            elif not reads_sizes_only(node):
                for source in tensor_inputs(node):
                    self._add(source, everything(source))

    def of(self, node: fx.Node) -> torch.Tensor:
        """Live channels of a value; a value nobody reads has none."""
        found = self.live.get(node)
        return nothing(node) if found is None else found

    def _add(self, node: fx.Node, reads: torch.Tensor) -> None:
        known = self.live.get(node)
        reads = reads.expand(fact_shape(node))
        self.live[node] = reads if known is None else known | reads

    def _spread(self, node: fx.Node) -> None:
        live_out = self.of(node)
        if not bool(live_out.any()):
            return
        try:
            reads = self.constants.rule(node).live(node, live_out, self.constants)
            reads = {source: found.expand(fact_shape(source)) for source, found in reads.items()}
        except Exception as error:  # a call the rule was not written for: it reads all of its inputs
            self.constants.fail(node, error)
            reads = {}
        for source in tensor_inputs(node):
            self._add(source, reads.get(source, everything(source)))
