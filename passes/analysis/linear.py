"""One view of the operators that multiply by a parameter matrix: linear, addmm, mm and matmul with a 2-D parameter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from passes.channels import is_parameter, tensor_of

aten = torch.ops.aten


@dataclass(frozen=True)
class LinearForm:
    """``node`` computes ``input @ weight(.T) + bias``; ``out_dim`` is the weight dim of the output features.

    ``out_dim`` is 0 for ``nn.Linear`` ([out, in]) and 1 for GPT-2's Conv1D ([in, out]).
    """

    node: fx.Node
    input: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    out_dim: int

    @property
    def weight_name(self) -> str:
        return str(self.weight.target)

    @property
    def in_dim(self) -> int:
        return 1 - self.out_dim

    def rows(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight as (out_features, in_features)."""
        return weight if self.out_dim == 0 else weight.t()


def linear_form(node: fx.Node) -> LinearForm | None:
    """The `LinearForm` of a node, or None if it is no product with a 2-D parameter."""
    if node.op != "call_function":
        return None
    if node.target is aten.linear.default:
        x, weight = node.args[0], node.args[1]
        bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        out_dim = 0
    elif node.target is aten.addmm.default:
        bias, x, weight = node.args[0], node.args[1], node.args[2]
        out_dim = 1
        if node.kwargs.get("beta", 1) != 1 or node.kwargs.get("alpha", 1) != 1:
            return None
    elif node.target in (aten.mm.default, aten.matmul.default):
        x, weight = node.args[0], node.args[1]
        bias, out_dim = None, 1
    else:
        return None
    if not isinstance(x, fx.Node) or not isinstance(weight, fx.Node) or not is_parameter(weight) or is_parameter(x):
        return None
    weight_value = tensor_of(weight)
    if weight_value is None or weight_value.dim() != 2:
        return None
    if bias is not None:
        if not isinstance(bias, fx.Node) or not is_parameter(bias):
            return None
        bias_value = tensor_of(bias)
        if bias_value is None or bias_value.dim() != 1:
            return None
    return LinearForm(node, x, weight, bias, out_dim)
