"""One view of the operators that multiply by a parameter matrix: linear, addmm, mm and matmul with a 2-D parameter.

nn.MultiheadAttention splits its packed weight at each use: a slice of a parameter along its output features counts as
that parameter, seen through a *window*. Any other derived weight is no linear form: its numbers would be misread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx

from passes.ir.sizes import is_parameter, shape_of, tensor_of

aten = torch.ops.aten


class Window(NamedTuple):
    """Output features ``start`` up to ``stop`` of a weight, and the same entries of its bias."""

    start: int
    stop: int


@dataclass(frozen=True)
class LinearForm:
    """``node`` computes ``input @ weight(.T) + bias``; ``out_dim`` is the weight dim of the output features.

    ``out_dim`` is 0 for ``nn.Linear`` ([out, in]) and 1 for GPT-2's Conv1D ([in, out]). ``weight`` and ``bias`` are the
    parameters; ``weight_operand`` and ``bias_operand`` what the node reads: the parameters, or a window of them.
    """

    node: fx.Node
    input: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    out_dim: int
    weight_operand: fx.Node
    bias_operand: fx.Node | None
    window: Window | None = None

    @property
    def weight_name(self) -> str:
        return str(self.weight.target)

    @property
    def bias_name(self) -> str | None:
        return None if self.bias is None else str(self.bias.target)

    @property
    def in_dim(self) -> int:
        return 1 - self.out_dim

    def all_rows(self, weight: torch.Tensor) -> torch.Tensor:
        """The whole weight as (out_features, in_features)."""
        return weight if self.out_dim == 0 else weight.t()

    def rows(self, weight: torch.Tensor) -> torch.Tensor:
        """What this use sees of the weight, (out_features, in_features)."""
        return self.seen(self.all_rows(weight))

    def seen(self, features: torch.Tensor) -> torch.Tensor:
        """The entries of a tensor over all output features (its first dim) that this use sees."""
        return features if self.window is None else features[self.window.start : self.window.stop]


def linear_form(node: fx.Node) -> LinearForm | None:
    """The `LinearForm` of a node, or None if it is no product with a 2-D parameter."""
    if node.op != "call_function":
        return None
    bias: Any = None
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
        out_dim = 1
    else:
        return None
    if not isinstance(x, fx.Node) or not isinstance(weight, fx.Node) or is_parameter(x):
        return None
    source, window = _through_window(weight, out_dim)
    if source is None or _rank(source) != 2:
        return None
    bias_source = None
    if bias is not None:
        if not isinstance(bias, fx.Node):
            return None
        bias_source, bias_window = _through_window(bias, 0)
        if bias_source is None or _rank(bias_source) != 1 or bias_window != window:
            return None
    return LinearForm(node, x, source, bias_source, out_dim, weight, bias, window)


def _rank(node: fx.Node) -> int:
    value = tensor_of(node)
    return -1 if value is None else value.dim()


def _through_window(node: fx.Node, dim: int) -> tuple[fx.Node | None, Window | None]:
    """(the parameter, None), (the parameter, window) for an unstrided slice along ``dim``, or (None, None)."""
    if is_parameter(node):
        return node, None
    source = node.args[0] if node.target is aten.slice.Tensor else None
    if not isinstance(source, fx.Node) or not is_parameter(source) or node.kwargs or len(node.args) > 4:
        return None, None
    given: list[Any] = [*node.args[1:], *(0, None, None)[len(node.args) - 1 :]]
    size = shape_of(source)[dim]
    if given[0] % len(shape_of(source)) != dim or any(isinstance(bound, fx.Node) for bound in given[1:]):
        return None, None
    start, stop, _ = slice(given[1], given[2]).indices(size)
    return source, None if (start, stop) == (0, size) else Window(start, stop)
