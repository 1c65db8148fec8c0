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
from passes.ops.arguments import arguments

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


class Affine(NamedTuple):
    """x · W + b as an operator writes it. ``out_dim`` is the dim of W that holds the output features."""

    x: fx.Node
    weight: fx.Node
    bias: Any
    out_dim: int


def affine(node: fx.Node) -> Affine | None:
    """The operands of linear, addmm, mm and matmul, whatever they are; None for anything else."""
    if node.op != "call_function":
        return None
    if node.target is aten.linear.default:
        given = arguments(node)
        found = Affine(given["input"], given["weight"], given["bias"], 0)
    elif node.target is aten.addmm.default:
        given = arguments(node)
        found = Affine(given["mat1"], given["mat2"], given["self"], 1)
        if given["beta"] != 1 or given["alpha"] != 1:
            return None
    elif node.target in (aten.mm.default, aten.matmul.default):
        x, weight = node.args
        assert isinstance(x, fx.Node)
        assert isinstance(weight, fx.Node)
        found = Affine(x, weight, None, 1)
    else:
        return None
    return found


def linear_form(node: fx.Node) -> LinearForm | None:
    """The `LinearForm` of a node, or None if it is no product with a 2-D parameter."""
    operands = affine(node)
    if operands is None or is_parameter(operands.x):
        return None
    x, weight, bias, out_dim = operands
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


def _rank(node: fx.Node) -> int | None:
    value = tensor_of(node)
    return None if value is None else value.dim()


def _through_window(node: fx.Node, dim: int) -> tuple[fx.Node | None, Window | None]:
    """(the parameter, None), (the parameter, window) for an unstrided slice along ``dim``, or (None, None)."""
    if is_parameter(node):
        return node, None
    if node.op != "call_function" or node.target is not aten.slice.Tensor:
        return None, None
    given = arguments(node)
    source = given["self"]
    if not is_parameter(source) or given["step"] != 1 or given["dim"] % len(shape_of(source)) != dim:
        return None, None
    if any(isinstance(given[bound], fx.Node) for bound in ("start", "end")):
        return None, None
    size = shape_of(source)[dim]
    start, stop, _ = slice(given["start"], given["end"]).indices(size)
    return source, None if (start, stop) == (0, size) else Window(start, stop)
