"""Forward analysis: which linears a value comes from, looking only through views and pointwise arithmetic.

    reach(linear)        = {linear}
    reach(view(x))       = reach(x);  several inputs (cat, stack): their union
    reach(f(x))          = reach(x), activated, for a pointwise nonlinearity f
    reach(a ∘ b)         = the union, for products
    reach(a + b)         = reach(a) if reach(a) = reach(b) or b is constant; otherwise nothing:
                           a sum of two different things is a residual stream, not one linear's output
    anything else        = nothing

Normalisations count as transparent (query and key norms) where the caller says so.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from torch import fx

from passes.ops.kinds import (
    LOOKUPS,
    PRODUCTS,
    SUMS,
    holds_tensor,
    is_norm,
    is_pointwise,
    is_reduction,
    is_view,
    tensor_inputs,
)


@dataclass(frozen=True)
class Reach:
    """Where a value comes from. ``linears``: {linear node: whether a nonlinearity lies on the way}.

    ``constant`` values depend on parameters and sizes only. A value that is neither constant nor has linears comes
    from something the walk does not look through.
    """

    linears: Mapping[fx.Node, bool]
    constant: bool = False

    @property
    def opaque(self) -> bool:
        return not self.constant and not self.linears


_CONSTANT = Reach({}, constant=True)
_OPAQUE = Reach({})


def reach(graph: fx.Graph, linears: Container[fx.Node], *, through_norms: bool) -> Mapping[fx.Node, Reach]:
    """The `Reach` of every tensor of the graph."""
    found: dict[fx.Node, Reach] = {}
    for node in graph.nodes:
        if not holds_tensor(node) or node.op == "output":
            continue
        inputs = [found[n] for n in tensor_inputs(node)]
        if node in linears:
            found[node] = Reach({node: False})
        elif node.op == "placeholder":
            found[node] = _OPAQUE
        elif all(r.constant for r in inputs):
            found[node] = _CONSTANT
        elif through_norms and is_norm(node):
            found[node] = found[tensor_inputs(node)[0]]
        elif is_view(node) or (through_norms and is_reduction(node)):
            found[node] = _union(inputs)
        elif node.target in LOOKUPS and all(r.constant for r in inputs[1:]):
            found[node] = inputs[0]
        elif is_pointwise(node):
            found[node] = _pointwise(node, inputs)
        else:
            found[node] = _OPAQUE
    return found


def _union(inputs: list[Reach]) -> Reach:
    merged: dict[fx.Node, bool] = {}
    for r in inputs:
        for linear, activated in r.linears.items():
            merged[linear] = activated or merged.get(linear, False)
    return Reach(merged)


def _pointwise(node: fx.Node, inputs: list[Reach]) -> Reach:
    if node.target in SUMS:
        varying = [r for r in inputs if not r.constant]
        if any(r.opaque or r.linears.keys() != varying[0].linears.keys() for r in varying):
            return _OPAQUE
        return _union(varying)
    union = _union(inputs)
    if node.target in PRODUCTS:
        return union
    return Reach(dict.fromkeys(union.linears, True))
