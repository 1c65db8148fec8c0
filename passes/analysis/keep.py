"""Keep-sets: what every axis keeps."""

from __future__ import annotations

import torch
from torch import fx

from passes.analysis.constants import Constants
from passes.analysis.coupling.even import even_heads
from passes.analysis.coupling.ragged import make_ragged
from passes.analysis.coupling.round_up import round_up
from passes.analysis.coupling.solver import Coupling, couple, solve
from passes.analysis.liveness import Liveness
from passes.ir.sizes import shape_of, tensor_inputs, tensor_of
from passes.ops.facts import axis
from passes.options import ShrinkOptions

aten = torch.ops.aten


def least_keeps(constants: Constants, liveness: Liveness, options: ShrinkOptions) -> Coupling:
    """The least keep-sets above liveness, with dims of their own for heads where that keeps fewer."""
    coupling = couple(constants, liveness, whole=options.granularity)
    make_ragged(coupling, liveness)
    return coupling


def choose_keeps(constants: Constants, liveness: Liveness, options: ShrinkOptions) -> Coupling:
    """What every axis keeps: see `ShrinkOptions`, and `keep_something`."""
    coupling = couple(constants, liveness, whole=options.granularity)
    keep_something(coupling, constants.graph_module.graph)
    make_ragged(coupling, liveness)
    round_up(coupling, options.multiple)
    if options.granularity == "even":
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
            and len(kept) > 0
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
