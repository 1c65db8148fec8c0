"""Embedding tables in 8 or 4 bits: the rows that are looked up become float32, the table never does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import InPlacePass, PassResult
from torch import fx

from bpc.emit.ir_tools import add_initializer, insert, remove_dead, replace
from bpc.emit.rounding import BLOCK, blocks_int4, read_int4, rows_int8
from passes.ir.graph import copy_graph, free_name, set_numbers

Embeddings = Literal["float32", "int8", "int4"]
Bits = Literal[4, 8]

# Numbers in a table. Smaller tables (token types, relative positions) weigh nothing beside the file and are left alone;
# those in between (positions) are read by every input, and 4 bits of them save little.
SMALL, LARGE = 16_384, 1_000_000

_INT64, _FLOAT = ir.DataType.INT64, ir.DataType.FLOAT


def embedding_tables(graph_module: fx.GraphModule) -> frozenset[str]:
    """Names of the weights that a traced graph looks rows up in (``aten.embedding``).

    Tables indexed otherwise (cosines of positions, relative biases) are numbers of another kind, and not among them.
    """
    lookups = graph_module.graph.find_nodes(op="call_function", target=torch.ops.aten.embedding.default)
    tables = (node.args[0] for node in lookups)
    return frozenset(str(t.target) for t in tables if isinstance(t, fx.Node) and t.op == "get_attr")


@dataclass(frozen=True)
class StoredTable:
    """A table as the file holds it. ``everywhere``: not only lookups read it."""

    numbers: np.ndarray
    scales: np.ndarray
    width: int
    everywhere: bool = False

    def read(self) -> torch.Tensor:
        """The float32 table that this stands for."""
        if self.numbers.dtype == np.uint8:
            return torch.from_numpy(read_int4(self.numbers, self.scales, self.width))
        return torch.from_numpy(self.numbers * self.scales)


def with_stored_tables(graph_module: fx.GraphModule, tables: Mapping[str, StoredTable]) -> fx.GraphModule:
    """A copy of a graph that reads ``tables`` as they are stored: what a right file computes."""
    result = copy_graph(graph_module)
    lookups = result.graph.find_nodes(op="call_function", target=torch.ops.aten.embedding.default)
    for name, table in tables.items():
        if table.everywhere:
            set_numbers(result, name, table.read())
            continue
        own = free_name(result, f"stored_{name.replace('.', '_')}")
        set_numbers(result, own, table.read())
        for node in lookups:
            read = node.args[0]
            if isinstance(read, fx.Node) and read.op == "get_attr" and read.target == name:
                with result.graph.inserting_before(node):
                    stored = result.graph.get_attr(own)
                stored.meta = dict(read.meta)
                node.update_arg(0, stored)
    result.recompile()
    return result


class QuantizeEmbeddings(InPlacePass):
    """Gather(table, ids) -> Cast(Gather(int8 table, ids)) · Gather(scales, ids), one scale per row.

    In 4 bits two numbers share a byte, and 32 neighbours a scale (`bpc.emit.rounding`):

        bytes = Cast(Gather(uint8 table, ids)); high = Floor(bytes / 16); low = bytes − 16 · high
        Gather(table, ids) -> (Concat(low, high) − 8) · Gather(scales, ids)

    ids are not known when the file is loaded, so that no runtime folds the table to float32. Standard operators only,
    on float32 but for Gather: ONNX has no Gather of int4, and not every provider shifts bits.

    A table that other operators read too (a tied output layer) is stored once, in 8 bits; they read
    Cast(int8 table) · scales, which a runtime folds once, when it loads the file. Left alone: tables under
    `SMALL` numbers. In 8 bits though 4 are asked for: tables under `LARGE` numbers, and tied ones. After a call
    ``stored`` has what was rewritten, by the tables' names; ``kept`` says what stays in float32, and why.
    """

    def __init__(self, tables: Collection[str], bits: Bits) -> None:
        super().__init__()
        self._tables = tables
        self._bits = bits
        self.stored: dict[str, StoredTable] = {}
        self.kept: dict[str, str] = {}

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the main graph's lookups in the tables of the given names."""
        modified = False
        for name in sorted(self._tables & model.graph.initializers.keys()):
            value = model.graph.initializers[name]
            tensor = value.const_value
            if tensor is None or tensor.dtype != _FLOAT or tensor.size < SMALL:
                continue
            table = tensor.numpy()
            reason = _refusal(value, table)
            if reason:
                self.kept[name] = reason
                continue
            self.stored[name] = self._rewrite(model.graph, value, table)
            modified = True
        remove_dead(model)
        return PassResult(model, modified)

    def _rewrite(self, graph: ir.Graph, value: ir.Value, table: np.ndarray) -> StoredTable:
        lookups = [use.node for use in value.uses() if _is_lookup(use.node, value)]
        others = [use for use in value.uses() if not _is_lookup(use.node, value)]
        ranked = all(node.outputs[0].shape is not None for node in lookups)
        if self._bits == 4 and table.size >= LARGE and not others and ranked:
            packed, block_scales = blocks_int4(table)
            stored = add_initializer(graph, f"{value.name}.int4", packed)
            scales = add_initializer(graph, f"{value.name}.scales", block_scales)
            for node in lookups:
                replace(node.outputs[0], _lookup_int4(graph, node, stored, scales, table.shape[-1]))
            return StoredTable(packed, block_scales, table.shape[-1])
        numbers, row_scales = rows_int8(table)
        stored = add_initializer(graph, f"{value.name}.int8", numbers)
        scales = add_initializer(graph, f"{value.name}.scales", row_scales)
        for node in lookups:
            replace(node.outputs[0], _lookup_int8(node, stored, scales))
        if others:
            first = graph[0]
            wide = insert(first, "Cast", [stored], shape=table.shape, dtype=_FLOAT, attributes={"to": _FLOAT.value})
            dense = insert(first, "Mul", [wide, scales], shape=table.shape, dtype=_FLOAT)
            for use in others:
                use.node.replace_input_with(use.idx, dense)
        return StoredTable(numbers, row_scales, table.shape[-1], everywhere=bool(others))


def _is_lookup(node: ir.Node, table: ir.Value) -> bool:
    """Whether a node gathers whole rows of ``table`` at places that are not known beforehand."""
    if (node.op_type, node.domain) != ("Gather", "") or node.inputs[0] is not table or table.shape is None:
        return False
    ids = node.inputs[1]
    axis = node.attributes.get_int("axis", 0) % len(table.shape)
    return axis < len(table.shape) - 1 and ids is not None and ids.const_value is None


def _refusal(value: ir.Value, table: np.ndarray) -> str:
    """Why a table stays as it is; "" where it need not."""
    if value.is_graph_output():
        return "the model returns it"
    if not any(_is_lookup(use.node, value) for use in value.uses()):
        return f"read by {', '.join(sorted({use.node.op_type for use in value.uses()}))}, not looked up"
    largest = float(np.abs(table).max())
    if not largest < 1e30:  # also where there is a NaN; beyond, a rounded number may leave float32
        return f"a row holds {largest:g}, which leaves the other numbers of it no precision"
    return ""


def _gather(node: ir.Node, table: ir.Value) -> ir.Value:
    """``node`` with another table, whose rows have another width."""
    out, shape = node.outputs[0], table.shape
    assert shape is not None
    dims = None if out.shape is None else [*out.shape.dims[:-1], shape[-1]]
    axis = {"axis": node.attributes.get_int("axis", 0)}
    return insert(node, "Gather", [table, node.inputs[1]], shape=dims, dtype=table.dtype, attributes=axis)


def _float(before: ir.Node, value: ir.Value) -> ir.Value:
    if value.dtype == _FLOAT:
        return value
    return insert(before, "Cast", [value], like=value, dtype=_FLOAT, attributes={"to": _FLOAT.value})


def _lookup_int8(node: ir.Node, table: ir.Value, scales: ir.Value) -> ir.Value:
    rows = _float(node, _gather(node, table))  # (…, width)
    return insert(node, "Mul", [rows, _gather(node, scales)], like=node.outputs[0])


def _lookup_int4(graph: ir.Graph, node: ir.Node, table: ir.Value, scales: ir.Value, width: int) -> ir.Value:
    out = node.outputs[0]
    assert out.shape is not None
    ids = out.shape.dims[:-1]  # the dims of ids, and of a table with more than two those beside

    def number(name: str, content: np.ndarray) -> ir.Value:
        return add_initializer(graph, f"{out.name}.{name}", content)

    sixteen = number("sixteen", np.array(16, np.float32))
    both = _float(node, _gather(node, table))  # (…, padded/2)
    high = insert(node, "Floor", [insert(node, "Div", [both, sixteen], like=both)], like=both)
    low = insert(node, "Sub", [both, insert(node, "Mul", [high, sixteen], like=both)], like=both)
    factors = _float(node, _gather(node, scales))  # (…, blocks)
    assert factors.shape is not None
    count = int(factors.shape[-1])  # type: ignore[arg-type]  # of a constant
    padded = count * BLOCK
    nibbles = insert(
        node, "Concat", [low, high], shape=[*ids, padded], dtype=_FLOAT, attributes={"axis": len(ids)}
    )  # (…, padded)
    eight = number("eight", np.array(8, np.float32))
    blocked = number("blocked", np.array([0] * len(ids) + [count, BLOCK], np.int64))
    blocks = insert(node, "Reshape", [nibbles, blocked], shape=[*ids, count, BLOCK], dtype=_FLOAT)  # (…, blocks, 32)
    levels = insert(node, "Sub", [blocks, eight], like=blocks)
    last = number("last", np.array([-1], np.int64))
    factors = insert(node, "Unsqueeze", [factors, last], shape=[*ids, count, 1], dtype=_FLOAT)
    product = insert(node, "Mul", [levels, factors], like=blocks)
    joined = number("joined", np.array([0] * len(ids) + [padded], np.int64))
    rows = insert(node, "Reshape", [product, joined], shape=[*ids, padded], dtype=_FLOAT)
    if padded == width:
        return rows
    ends = [number(n, np.array([v], np.int64)) for n, v in (("start", 0), ("end", width), ("axis", len(ids)))]
    return insert(node, "Slice", [rows, *ends], like=out)
