"""Blocks: which linears together form one attention or one feed-forward network.

`attention_block` starts from a core: back to the linears its operands come from, forward to the linear that reads its
output. `feed_forward_block` starts from a linear and asks whether its input is an activation of one or two others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import torch
from torch import fx

from passes.ir.graph import ancestors
from passes.ir.sizes import carrying_inputs, holds_tensor, tensor_of
from passes.ops import pieces
from passes.ops.pieces import slice_arguments
from passes.ops.rule import Kind
from passes.ops.table import kind_of
from passes.structure.attention_cores import AttentionCore
from passes.structure.reach import Reach
from passes.structure.role import Family, Part, Role
from passes.structure.weight_uses import WeightUse

aten = torch.ops.aten

_OPERANDS = (Part.QUERY, Part.KEY, Part.VALUE)
_CARRIES = frozenset({Kind.VIEW, Kind.POINTWISE, Kind.PRODUCT, Kind.GATE, Kind.NORM, Kind.REDUCTION})
_HALVES_ON_THE_WAY = frozenset({Kind.VIEW, Kind.POINTWISE, Kind.PRODUCT, Kind.GATE, Kind.SUM})


@dataclass(frozen=True)
class Block:
    """One attention, FFN or MLP: its linear nodes by part.

    ``tiles``: the fused gate and up are this many equal stretches of output features; 1 for other layouts.
    ``core``: of an attention.
    """

    name: str
    family: Family
    parts: Mapping[Part, frozenset[fx.Node]]
    weights: tuple[str, ...]
    head_dim: int | None = None
    value_dim: int | None = None
    heads: int | None = None
    tiles: int = 1
    core: AttentionCore | None = None

    @property
    def nodes(self) -> Set[fx.Node]:
        return frozenset().union(*self.parts.values())

    def parts_of(self, nodes: Set[fx.Node]) -> set[Part]:
        """The parts that any of ``nodes`` plays."""
        return {part for part, own in self.parts.items() if own & nodes}

    def role(self, parts: Set[Part]) -> Role:
        """The role of a weight that plays ``parts``; OTHER where they are no one part."""
        return Role.of(self.family, Part.of(parts))

    def head_shape(self, role: Role, out_features: int, in_features: int) -> tuple[int | None, int | None]:
        """(heads, head_dim) of a weight of this block, (None, None) where it has none."""
        if role.family is not Family.ATTENTION or role.part is None:
            return None, None
        size = self.value_dim if role.part in (Part.VALUE, Part.OUTPUT) else self.head_dim
        fused = len(role.part.members) > 1
        if fused and Part.VALUE in role.part.members and self.head_dim != self.value_dim:
            return None, None
        features = in_features if role.leaves else out_features
        if size is None or features % size:
            return None, None
        return (self.heads if fused else features // size), size


def attention_block(
    name: str, core: AttentionCore, sources: Mapping[fx.Node, Reach], uses: Mapping[fx.Node, WeightUse]
) -> Block:
    """The linears around an attention core. Parts that are not recognised are empty."""
    parts = {
        part: frozenset(linear for operand in operands for linear in sources[operand].linears)
        for part, operands in zip(_OPERANDS, (core.queries, core.keys, core.values), strict=True)
    }
    parts[Part.OUTPUT] = frozenset(_readers(core.output, sources, uses))
    weights = _weights(parts, uses)
    return Block(name, Family.ATTENTION, parts, weights, core.head_dim, core.value_dim, core.heads, core=core)


def _weights(parts: Mapping[Part, Iterable[fx.Node]], uses: Mapping[fx.Node, WeightUse]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uses[node].weight for nodes in parts.values() for node in nodes))


def _readers(start: fx.Node, sources: Mapping[fx.Node, Reach], uses: Mapping[fx.Node, WeightUse]) -> Iterable[fx.Node]:
    """Linears that read ``start`` through views, pointwise operators and norms; sums only with constants."""
    seen, stack = {start}, [start]
    while stack:
        origin = stack.pop()
        for node in origin.users:
            if node in uses:
                if uses[node].input is origin:
                    yield node
            elif node not in seen and _carries(node, origin, sources):
                seen.add(node)
                stack.append(node)


def _carries(node: fx.Node, origin: fx.Node, sources: Mapping[fx.Node, Reach]) -> bool:
    if node.op != "call_function" or not holds_tensor(node):
        return False
    kind = kind_of(node)
    if kind is Kind.SUM:
        return all(n is origin or sources[n].constant for n in carrying_inputs(node))
    return kind in _CARRIES


def feed_forward_block(
    index: int, down: fx.Node, sources: Mapping[fx.Node, Reach], uses: Mapping[fx.Node, WeightUse], taken: Set[fx.Node]
) -> Block | None:
    """The FFN that ends in the linear ``down``, or None. ``taken`` linears belong to attentions already."""
    feeding = sources[uses[down].input].linears if uses[down].input in sources else {}
    activated = [linear for linear, f in feeding.items() if f]
    plain = [linear for linear, f in feeding.items() if not f]
    if len(activated) != 1 or len(plain) > 1 or taken & set(feeding):
        return None
    width, first = _width(uses[down].input), _width(activated[0])
    tiles = 1
    if plain:
        if first != width or _width(plain[0]) != width:
            return None
        parts = {Part.GATE: activated, Part.UP: plain}
    elif first == width:
        parts = {Part.UP: activated}
    elif isinstance(width, int) and first == 2 * width:
        parts = {Part.GATE_UP: activated}
        tiles = 1 if _interleaved(activated[0], uses) else 2
    else:
        return None
    entry = uses[next(iter(feeding))].input
    family = Family.FFN if _has_residual(down, entry, uses) else Family.MLP
    nodes = {part: frozenset(linears) for part, linears in parts.items()} | {Part.DOWN: frozenset({down})}
    return Block(f"{family}.{index}", family, nodes, _weights(nodes, uses), tiles=tiles)


def _width(node: fx.Node) -> int | None:
    """The static size of the last dim; None where there is none."""
    value = tensor_of(node)
    size = value.shape[-1] if value is not None and value.dim() else None
    return size if isinstance(size, int) else None


def _interleaved(fused: fx.Node, uses: Mapping[fx.Node, WeightUse]) -> bool:
    """The halves of a fused linear are taken by strides or reshapes, not as two contiguous stretches."""
    seen, stack, contiguous = {fused}, [fused], False
    while stack:
        for node in stack.pop().users:
            if node in seen or node in uses or kind_of(node) not in _HALVES_ON_THE_WAY:
                continue
            seen.add(node)
            stack.append(node)
            sliced = node.target is aten.slice.Tensor
            if sliced and slice_arguments(node)[3] != 1:
                return True
            contiguous |= sliced or node.target in pieces.SPLITS or kind_of(node) is Kind.GATE
    return not contiguous


def _has_residual(down: fx.Node, entry: fx.Node, uses: Mapping[fx.Node, WeightUse]) -> bool:
    """Whether ``down``'s output is added to something that ``entry``, the FFN's input, was computed from."""
    before = ancestors([entry]) | {entry}
    seen, stack = {down}, [down]
    while stack:
        origin = stack.pop()
        for node in origin.users:
            if node in seen or node in uses or node.op != "call_function":
                continue
            if kind_of(node) is Kind.SUM and any(
                n in before and n.op != "get_attr" for n in carrying_inputs(node) if n is not origin
            ):
                return True
            if kind_of(node) in _CARRIES or kind_of(node) is Kind.SUM:
                seen.add(node)
                stack.append(node)
    return False
