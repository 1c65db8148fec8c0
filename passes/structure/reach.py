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

from passes.ir.sizes import carrying_inputs, holds_tensor
from passes.ops.rule import Kind
from passes.ops.table import kind_of


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
        inputs = [found[n] for n in carrying_inputs(node)]
        kind = kind_of(node)
        if node in linears:
            found[node] = Reach({node: False})
        elif node.op == "placeholder":
            found[node] = _OPAQUE
        elif all(r.constant for r in inputs):
            found[node] = _CONSTANT
        elif through_norms and kind is Kind.NORM:
            found[node] = inputs[0]
        elif kind is Kind.VIEW or (through_norms and kind is Kind.REDUCTION):
            found[node] = _union(inputs)
        elif kind is Kind.LOOKUP and all(r.constant for r in inputs[1:]):
            found[node] = inputs[0]
        else:
            found[node] = _arithmetic(kind, inputs)
    return found


def _union(inputs: list[Reach]) -> Reach:
    merged: dict[fx.Node, bool] = {}
    for r in inputs:
        for linear, activated in r.linears.items():
            merged[linear] = activated or merged.get(linear, False)
    return Reach(merged)


def _arithmetic(kind: Kind, inputs: list[Reach]) -> Reach:
    if kind is Kind.SUM:
        varying = [r for r in inputs if not r.constant]
        if any(r.opaque or r.linears.keys() != varying[0].linears.keys() for r in varying):
            return _OPAQUE
        return _union(varying)
    if kind is Kind.PRODUCT:
        return _union(inputs)
    if kind in (Kind.POINTWISE, Kind.GATE):
        return Reach(dict.fromkeys(_union(inputs).linears, True))
    return _OPAQUE
