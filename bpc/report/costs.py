"""What each layer costs: weights and arithmetic, of the original and of the small model.

Arithmetic is counted as in `bpc.emit.flops`, node by node: linear layers and both products of attention, 2 FLOPs per
multiply-add, on shapes only.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from bpc.emit.axes import DynamicAxes, resized_inputs
from bpc.report.layers import Summary
from passes.ir.graph import ancestors
from passes.ir.info import trace_info
from passes.ir.sizes import is_symbolic
from passes.structure.attention_cores import find_attention_cores
from passes.structure.roles import find_roles
from passes.structure.weight_uses import weight_uses

LENGTHS = (128, 64, 32)  # tokens of one text; the first that the model takes


@dataclass(frozen=True)
class LayerCost:
    """Weights of a layer's linears: the original's, those that masks keep, the small model's; and FLOPs of both.

    ``flops``, ``small_flops``: None where they cannot be counted, or there is no small model.
    """

    title: str
    parameters: int
    kept: int
    present: int
    flops: int | None = None
    small_flops: int | None = None


@dataclass(frozen=True)
class Arithmetic:
    """FLOPs of one forward pass by block ("" is all that lies in none), and the inputs it is of, in words."""

    by_block: Mapping[str, int]
    inputs: str

    @property
    def total(self) -> int:
        return sum(self.by_block.values())


def layer_costs(summary: Summary, dense: Arithmetic | None, small: Arithmetic | None) -> tuple[LayerCost, ...]:
    """A row per layer, in the summary's order."""

    def of(found: Arithmetic | None, names: list[str]) -> int | None:
        return None if found is None else sum(found.by_block.get(name, 0) for name in names)

    rows = []
    for layer in summary.layers:
        names = [b.block_id for b in layer.blocks]
        parameters, kept, present = (
            sum(getattr(b, name) for b in layer.blocks)
            for name in ("parameters", "parameters_kept", "parameters_present")
        )
        rows.append(LayerCost(layer.title, parameters, kept, present, of(dense, names), of(small, names)))
    return tuple(rows)


def arithmetic(dense: fx.GraphModule, small: fx.GraphModule | None) -> tuple[Arithmetic | None, Arithmetic | None]:
    """Of both graphs on the same inputs: one text of `LENGTHS` tokens, one image, or else the example of the trace."""
    homes = {name: role.block_id for role in find_roles(dense) if role.block_id for name in role.names}
    axes = _axes(dense)
    for sizes in (*({"batch": 1, "sequence": n} for n in LENGTHS), {}):
        wanted = {name: size for name, size in sizes.items() if name in axes.example}
        try:
            with _quiet():
                original = _count(dense, homes, axes, wanted)
                return original, None if small is None else _count(small, homes, axes, wanted)
        except (RuntimeError, IndexError, ValueError, AssertionError):
            continue  # the model does not take such inputs
    return None, None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch logs a shape that does not fit as an error, and raises it too."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _count(graph: fx.GraphModule, homes: Mapping[str, str], axes: DynamicAxes, sizes: Mapping[str, int]) -> Arithmetic:
    info = trace_info(graph)
    leaves = pytree.tree_leaves((info.args, info.kwargs))
    fresh = iter(resized_inputs(graph, axes, sizes))
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        leaves = [fake.from_tensor(next(fresh)) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        with FlopCounterMode(display=False) as counter:
            interpreter = _ByNode(graph, counter)
            interpreter.run(*leaves, enable_io_processing=False)
    found: Counter[str] = Counter()
    blocks = dict(_blocks(graph, homes))
    for node, flops in interpreter.flops.items():
        found[blocks.get(node, "")] += flops
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return Arithmetic(dict(found), ", ".join("×".join(map(str, t.shape)) for t in tensors))


class _ByNode(fx.Interpreter):
    """Runs a graph and notes the FLOPs of every node."""

    def __init__(self, graph: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(graph)
        self.counter = counter
        self.flops: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        result = super().run_node(n)
        if spent := self.counter.get_total_flops() - before:
            self.flops[n] = spent
        return result


def _axes(graph: fx.GraphModule) -> DynamicAxes:
    """Dynamic sizes by where they stand: the first dim is the batch, the second the sequence."""
    info = trace_info(graph)
    names: dict[int, dict[int, str]] = {}
    example: dict[str, int] = {}
    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    for index, (node, leaf) in enumerate(zip(placeholders, pytree.tree_leaves((info.args, info.kwargs)), strict=True)):
        for axis, name in enumerate(("batch", "sequence")):
            is_tensor = isinstance(leaf, torch.Tensor) and axis < leaf.dim()
            if is_tensor and is_symbolic(node.meta["val"].shape[axis]):
                names.setdefault(index, {})[axis] = name
                example[name] = leaf.shape[axis]
    return DynamicAxes(names, example, {})


def _blocks(graph: fx.GraphModule, homes: Mapping[str, str]) -> Iterator[tuple[fx.Node, str]]:
    """(node, block): linears by their weight's name, which the small graph keeps; attention by its linears."""
    uses = weight_uses(graph)
    linears = {node: homes[use.weight] for node, use in uses.items() if use.weight in homes}
    yield from linears.items()
    blocks = {block.name: block for block in find_roles(graph).blocks}
    for index, core in enumerate(find_attention_cores(graph.graph)):
        block = blocks[f"attention.{index}"]
        home = next((linears[node] for node in block.nodes if node in linears), None)
        if home is None:
            continue
        between = ancestors([core.output]) - ancestors([*core.queries, *core.keys, *core.values])
        for node in (core.output, *between):
            if node not in uses:
                yield node, home
