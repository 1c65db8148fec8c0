"""W [out, in]  ->  W [kept out, kept in], and every literal size, slice bound and table follows.

Preconditions: masks applied, constants folded, no dead code. Postconditions: every axis has the size its keep-set says;
attention scales are explicit; parameters are new tensors. Refusals are the pins of `passes.analysis.coupling`: an axis
with a pin keeps all its indices, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.analysis.coupling.even import even_heads
from passes.analysis.coupling.ragged import make_ragged
from passes.analysis.coupling.round_up import round_up
from passes.analysis.coupling.solver import Coupling, couple, solve
from passes.analysis.liveness import Liveness
from passes.ir.graph import collect_replaced, copy_graph, eliminate_dead_code, get_attribute, set_attribute
from passes.ir.manager import Pass, PassResult
from passes.ir.sizes import is_parameter, shape_of, tensor_inputs, tensor_of
from passes.ops.attention import operands as attention_operands
from passes.ops.conv import CONVOLUTIONS, GROUPS, group_count
from passes.ops.facts import Axis, axis
from passes.ops.structural import cat_dim, select_index, slice_arguments, slice_index
from passes.plan.data import Cut, HeadView, cut_tensor
from passes.rewrite.repeats import rewrite_repeats

aten = torch.ops.aten


Granularity = Literal["dims", "even", "heads", "units"]


@dataclass(frozen=True)
class ShrinkDims(Pass):
    """How fine attention is cut, ``granularity``:

    dims    heads and the dims inside them
    even    the same, but q, k and v keep as many dims as each other, and layers that share a table the same of it
    heads   whole heads, all of the same size
    units   no heads: only what is not viewed as (heads, dims), such as FFN dims

    ``multiple``: counts of dims are rounded up to it, see `passes.analysis.round_up`.
    """

    granularity: Granularity = "dims"
    multiple: int = 1
    name = "shrink-dims"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        del graph_module
        collect_replaced(result)
        constants = Constants(result)
        liveness = Liveness(constants)
        coupling = choose_keeps(constants, liveness, self.granularity, self.multiple)
        cuts = plan_cuts(result, coupling, constants, liveness)
        if not any(cut.keep for cut in cuts):
            return PassResult(result, False, {"cuts": (), "heads": (), "coupling": coupling})
        _select_at_use(result, coupling)
        rewrite_repeats(result, coupling)
        for node in list(result.graph.nodes):
            rewrite = LITERALS.get(node.target) if node.op == "call_function" else None
            if rewrite is not None:
                rewrite(node, coupling)
        for cut in cuts:
            small = cut_tensor(get_attribute(result, cut.parameter).detach(), cut)
            _write(result, cut.parameter, small)
        eliminate_dead_code(result)
        result.recompile()
        return PassResult(result, True, {"cuts": cuts, "heads": head_views(coupling), "coupling": coupling})


def choose_keeps(
    constants: Constants, liveness: Liveness, granularity: Granularity = "dims", multiple: int = 1
) -> Coupling:
    """What every axis keeps, see `ShrinkDims`."""
    coupling = couple(constants, liveness, whole=granularity)
    keep_something(coupling, constants.graph_module.graph)
    make_ragged(coupling, liveness)
    round_up(coupling, multiple)
    if granularity == "even":
        even_heads(coupling)
    return coupling


def keep_something(coupling: Coupling, graph: fx.Graph) -> None:
    """Every axis a surviving node needs keeps at least one (zero) index; a dead piece of a concatenation may go.

    Heads and head dims choose first: a flat axis then keeps a dim of a head that lives anyway.
    """
    pieces = {s for n in graph.nodes if n.target is aten.cat.default for s in tensor_inputs(n)}
    flats = {coupling.class_of[grid.flat] for grid in coupling.ties.grids}
    while True:
        empty = [
            found
            for node in graph.nodes
            if tensor_of(node) is not None and node not in pieces
            for dim in range(len(shape_of(node)))
            if (found := axis(node, dim)) is not None
            and (kept := coupling.keep_axis(found)) is not None
            and not bool(kept.any())
        ]
        if not empty:
            return
        numbers = {coupling.class_of[found] for found in empty}
        for number in numbers - flats or numbers:
            coupling.keeps[number][0] = True
            coupling.filled.add(number)
            coupling.seeds[number][0] = True  # solving again must not lose it
        solve(coupling)


# --------------------------------------------------------------------------------------------------- parameters


def plan_cuts(
    graph_module: fx.GraphModule, coupling: Coupling, constants: Constants, liveness: Liveness
) -> tuple[Cut, ...]:
    """One `Cut` per parameter that changes."""
    cuts = []
    names = dict.fromkeys(str(n.target) for n in graph_module.graph.nodes if is_parameter(n))
    cleared = _rows_to_clear(constants, liveness)
    for name in names:
        shape = tuple(get_attribute(graph_module, name).shape)
        keep: dict[int, tuple[int, ...]] = {}
        for dim in range(len(shape)):
            kept = coupling.keep_axis(Axis(f"@{name}", dim))
            if kept is not None and not bool(kept.all()):
                keep[dim] = tuple(kept.nonzero().flatten().tolist())
        rows, dim = cleared.get(name, ((), 0))
        rows = tuple(r for r in rows if dim not in keep or r in set(keep[dim]))
        if keep or rows:
            cuts.append(Cut(name, shape, keep, rows, dim))
    return tuple(cuts)


def head_views(coupling: Coupling) -> tuple[HeadView, ...]:
    """How the parameters' dims are viewed as (heads, dims), before and after."""
    found = {}
    for grid in coupling.ties.grids:
        if len(grid.parts) != 2:
            continue
        numbers = [coupling.class_of[p] for p in grid.parts]
        after = tuple(
            int(coupling.rows[n][0].sum()) if n in coupling.rows else int(coupling.keeps[n].sum()) for n in numbers
        )
        for member in coupling.members[coupling.class_of[grid.flat]]:
            if member.value.startswith("@"):
                found[member] = HeadView(
                    member.value[1:], member.dim, (grid.sizes[0], grid.sizes[1]), (after[0], after[1])
                )
    return tuple(found[member] for member in sorted(found))


def _rows_to_clear(constants: Constants, liveness: Liveness) -> dict[str, tuple[tuple[int, ...], int]]:
    """Output features of linear weights that nobody reads but that may have to stay: {parameter: (rows, dim)}.

    A constant feature keeps its bias: other facts rest on its number.
    """
    found: dict[str, tuple[tuple[int, ...], int]] = {}
    for name, uses in constants.uses.items():
        if not constants.only_linear(name):
            continue
        kept = torch.zeros(get_attribute(constants.graph_module, name).shape[uses[0].out_dim], dtype=torch.bool)
        for use in uses:
            kept_here = use.seen(kept)  # a view: writes go to `kept`
            kept_here |= _last_dim(liveness.of(use.node)) | _last_dim(constants.fact(use.node).const)
        rows = tuple((~kept).nonzero().flatten().tolist())
        if rows:
            found[name] = (rows, uses[0].out_dim)
            ours = {use.node for use in uses} | {use.bias_operand for use in uses}
            for bias in {use.bias_name for use in uses if use.bias_name is not None}:
                readers = {u for n in constants.graph_module.graph.nodes if n.target == bias for u in n.users}
                if readers <= ours:
                    found[bias] = (rows, 0)
    return found


def _last_dim(fact: torch.Tensor) -> torch.Tensor:
    return fact.reshape(-1, fact.shape[-1]).any(0)


def _write(graph_module: fx.GraphModule, name: str, tensor: torch.Tensor) -> None:
    """Write a tensor under a dotted name, as the kind (parameter or buffer) it was."""
    if isinstance(get_attribute(graph_module, name), torch.nn.Parameter):
        set_attribute(graph_module, name, torch.nn.Parameter(tensor, requires_grad=False))
    else:
        set_attribute(graph_module, name, tensor)


# ------------------------------------------------------------------------------------------------- select at use


def _select_at_use(graph_module: fx.GraphModule, coupling: Coupling) -> None:
    """Where a table keeps more than this user does, pick the user's indices in front of it."""
    graph = graph_module.graph
    chosen: dict[tuple[fx.Node, int, tuple[int, ...]], fx.Node] = {}
    for number, cover in enumerate(coupling.ties.covers):
        table, user = coupling.keep_axis(cover.table), coupling.keep_axis(cover.user)
        assert table is not None
        assert user is not None
        if torch.equal(table, user):
            continue
        positions = (torch.cumsum(table, 0) - 1)[user]
        key = (cover.operand, cover.dim, tuple(positions.tolist()))
        if key not in chosen:
            name = f"table_index_{number}"
            graph_module.register_buffer(name, positions, persistent=False)
            with graph.inserting_after(cover.operand):
                index = graph.get_attr(name)
            with graph.inserting_after(index):
                chosen[key] = graph.call_function(aten.index_select.default, (cover.operand, cover.dim, index))
        cover.node.replace_input_with(cover.operand, chosen[key])


# ------------------------------------------------------------------------------------------------------ literals


def _sizes(node: fx.Node, coupling: Coupling, position: int) -> None:
    """view, reshape, expand, full: output dim i is literal i; shrunk channel dims get their count, over -1 too."""
    literals = node.args[position]
    assert isinstance(literals, list | tuple)
    sizes = list(literals)
    for dim in range(len(shape_of(node))):
        count = coupling.count(node, dim)
        if count is not None and not (sizes[dim] == -1 and node.target is aten.expand.default):
            sizes[dim] = count
    args = list(node.args)
    args[position] = sizes
    node.args = tuple(args)


def _view(node: fx.Node, coupling: Coupling) -> None:
    _sizes(node, coupling, 1)


def _created(node: fx.Node, coupling: Coupling) -> None:
    _sizes(node, coupling, 0)


def _unflatten(node: fx.Node, coupling: Coupling) -> None:
    dim, sizes = node.args[1], node.args[2]
    assert isinstance(dim, int)
    assert isinstance(sizes, list | tuple)
    first = dim % len(shape_of(tensor_inputs(node)[0]))
    new = [coupling.count(node, first + i) or size for i, size in enumerate(sizes)]
    node.args = (node.args[0], dim, new)


def _slice(node: fx.Node, coupling: Coupling) -> None:
    """Bounds become counts of kept indices before them."""
    index, (dim, _, _, _) = slice_index(node), slice_arguments(node)
    source = tensor_inputs(node)[0]
    kept = coupling.keep(source, dim)
    if index is None or kept is None or len(index) == 0 or coupling.count(source, dim) is None:
        return
    start, end = int(index[0]), int(index[-1]) + 1
    node.args = (source, dim, int(kept[:start].sum()), int(kept[:end].sum()))
    node.kwargs = {}


def _select(node: fx.Node, coupling: Coupling) -> None:
    dim, index = select_index(node)
    source = tensor_inputs(node)[0]
    kept = coupling.keep(source, dim)
    if index is not None and kept is not None:
        node.args = (source, dim, int(kept[:index].sum()))


def _cat(node: fx.Node, coupling: Coupling) -> None:
    """Drop pieces of which nothing is kept."""
    pieces, dim = node.args[0], cat_dim(node)
    assert isinstance(pieces, list | tuple)
    left = [p for p in pieces if isinstance(p, fx.Node) and coupling.count(p, dim) != 0]
    node.args = (left, *node.args[1:])


def _attention(node: fx.Node, coupling: Coupling) -> None:
    """The default scale is 1/sqrt(E): say it before E shrinks."""
    if node.kwargs.get("scale") is None:
        query = attention_operands(node)[0]
        node.kwargs = {**node.kwargs, "scale": float(shape_of(query)[-1]) ** -0.5}


def _convolution(node: fx.Node, coupling: Coupling) -> None:
    """A grouped convolution has as many groups as are left: all channels over those of one group."""
    if group_count(node) == 1:
        return
    source, weight = tensor_inputs(node)[:2]
    channels, per_group = (
        shape_of(value)[1] if (count := coupling.count(value, 1)) is None else count for value in (source, weight)
    )
    node.args = (*node.args[:GROUPS], channels // per_group, *node.args[GROUPS + 1 :])


LITERALS: Mapping[Any, Callable[[fx.Node, Coupling], None]] = {
    aten.view.default: _view,
    aten.reshape.default: _view,
    aten._unsafe_view.default: _view,
    aten.expand.default: _view,
    aten.broadcast_to.default: _view,
    aten.new_zeros.default: _view,
    aten.new_ones.default: _view,
    aten.new_full.default: _view,
    aten.zeros.default: _created,
    aten.ones.default: _created,
    aten.full.default: _created,
    aten.unflatten.int: _unflatten,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.cat.default: _cat,
    aten.scaled_dot_product_attention.default: _attention,
    **dict.fromkeys(CONVOLUTIONS, _convolution),
}
