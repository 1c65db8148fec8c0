"""Attention heads in another basis: the same function, from other numbers in the weights.

Inside a head, only products of two operands count: scores are q·k, and the output linear reads what the weights make of
v. So for any invertible matrices R, A of a head (a group of heads, where they share keys and values)

    v -> R v,   W_out -> W_out R⁻¹          each row of attention sums values, and R commutes with sums
    q -> A q,   k -> A⁻ᵀ k                  (A q)·(A⁻ᵀ k) = q·k

change nothing but rounding, while they choose what the dims of the head mean: dims that hardly matter can be made of
those that all matter a little (`bpc.oneshot.bases`).

Preconditions: the features named are linears' own; nothing between the linears tells the dims of a head apart (rotary
positions and normalised queries do). Whoever calls finds out, e.g. by running the result.
Postconditions: only the named rows, columns and bias entries change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, fx

from passes.ir.graph import GraphTensors, copy_graph, set_numbers
from passes.ir.manager import Pass, PassResult


@dataclass(frozen=True, eq=False)
class HeadFeatures:
    """Where the heads of one operand lie: ``index`` int64 (heads, dims) into a weight's output features, or its input
    features for the linear that reads the heads.

    ``out_dim``: the stored weight's dim of the output features, 0 for nn.Linear, 1 for Conv1D.
    """

    weight: str
    index: Tensor
    side: Literal["out", "in"] = "out"
    bias: str | None = None
    out_dim: int = 0

    @property
    def dim(self) -> int:
        """The weight's stored dim that ``index`` counts."""
        return self.out_dim if self.side == "out" else 1 - self.out_dim

    @property
    def dims(self) -> int:
        """Of a head."""
        return self.index.shape[1]


@dataclass(frozen=True, eq=False)
class Turn:
    """``matrices`` (heads, dims, dims), float64: M of each head. Output features f become M f, columns C become C M."""

    features: HeadFeatures
    matrices: Tensor


@dataclass(frozen=True)
class TurnHeads(Pass):
    """``turns``: operands that multiply each other must have matrices that cancel."""

    turns: Sequence[Turn]
    name: str = field(default="turn-heads", init=False)

    def requires(self, graph_module: fx.GraphModule) -> None:
        read = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
        for turn in self.turns:
            features = turn.features
            for name in (features.weight, features.bias):
                if name is not None and name not in read:
                    raise ValueError(f"turn of heads: the graph reads no parameter {name!r}")
            wanted = (*features.index.shape, features.dims)
            if tuple(turn.matrices.shape) != wanted:
                raise ValueError(f"turn of {features.weight!r}: matrices {tuple(turn.matrices.shape)}, not {wanted}")

    def numbers(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{name of a weight or bias: what it becomes}, in its dtype, from what they are."""
        found: dict[str, Tensor] = {}

        def current(name: str) -> Tensor:
            return found[name] if name in found else weights[name].double()

        for turn in self.turns:
            features, index = turn.features, turn.features.index
            weight = current(features.weight).transpose(0, features.dim).clone()  # (features, other)
            matrices = turn.matrices if features.side == "out" else turn.matrices.transpose(1, 2)
            weight[index.flatten()] = torch.bmm(matrices, weight[index]).flatten(0, 1)
            found[features.weight] = weight.transpose(0, features.dim)
            if features.bias is not None and features.side == "out":
                bias = current(features.bias).clone()
                bias[index.flatten()] = torch.bmm(matrices, bias[index][..., None]).flatten()
                found[features.bias] = bias
        return {name: value.contiguous().to(weights[name]) for name, value in found.items()}

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        for name, numbers in self.numbers(GraphTensors(graph_module)).items():
            set_numbers(result, name, numbers)
        return PassResult(result, bool(self.turns), {"operands": len(self.turns)})
