"""Writes in place, undone: ``x.add_(y)`` becomes ``add(x, y)``, and later uses of x read the result.

Two values may be one tensor: a view and its base, an operator that hands back its input (dropout in eval mode, ``to``
of the same dtype, ``contiguous``), an einsum that only permutes. Which are, the traced storages say. Where nobody else
holds what is written, the operator's functional twin takes its place; all else is left to torch's own functionalisation
(``run_decompositions``), which is told first of what it does not know.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import OutputKind
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from passes.ir.info import TraceError

aten = torch.ops.aten

# In eval mode they return their input, which neither their schema nor the traced storages say.
_DROPOUTS = frozenset(
    {
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.alpha_dropout.default,
        aten.feature_alpha_dropout.default,
    }
)
# "In place" by name only: the same numbers come out.
_HARMLESS = frozenset({aten.detach_.default, aten.requires_grad_.default})


def is_eval_dropout(node: fx.Node) -> bool:
    return node.target in _DROPOUTS and not node.args[2]


def is_functional(exported: torch.export.ExportedProgram) -> bool:
    """Whether nothing is written in place, so that `functional` has nothing to do."""
    return not _writes(exported.graph) and not _keeps_state(exported)


def functional(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without writes into memory that another value shares; it may be the one given, or a new one.

    Raises `TraceError` for a model that keeps state: one call writes a buffer and the next reads it.
    """
    if _writes(exported.graph):
        _drop_copies_to_themselves(exported.graph)
        _join_aliases(exported.graph)
    if not all(_is_simple(node, written) for node, written in _writes(exported.graph)) or _keeps_state(exported):
        with ShapeEnv.suppress_guards(ShapeEnv()):  # it must not fix sizes that the trace left open
            exported = exported.run_decompositions({})
    _refuse_state(exported)
    return exported


def without_writes(graph_module: fx.GraphModule) -> None:
    """Rewrite the remaining, simple, in-place operators; ``copy_`` into inputs and buffers goes: no effects."""
    graph = graph_module.graph
    for node, written in _writes(graph):
        if node.target is aten.copy_.default and written.op != "call_function":
            node.replace_all_uses_with(node.args[1])  # type: ignore[arg-type]
            graph.erase_node(node)
            continue
        assert isinstance(node.target, torch._ops.OpOverload)
        twin = _functional_variant(node.target)
        if twin is None or len(_written(node)) != 1:
            raise TraceError(f"in-place operator {node.target} ({node.name}) has no functional form bpc can use")
        node.target = twin
        seen = False
        for later in list(graph.nodes):
            if seen and written in later.all_input_nodes:
                later.replace_input_with(written, node)
            seen = seen or later is node


def writes_memory_of(graph: fx.Graph) -> set[fx.Node]:
    """Inputs, parameters and buffers whose memory the graph writes when it runs."""
    written = {_storage(target) for _, target in _writes(graph)} - {None}
    direct = {target for _, target in _writes(graph)}
    holders = [n for n in graph.nodes if n.op in ("placeholder", "get_attr")]
    return {n for n in holders if n in direct or _storage(n) in written}


def _writes(graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """(operator, tensor it writes in place) for every write."""
    return [(node, written) for node in graph.nodes for written in _written(node) if node.target not in _HARMLESS]


def _written(node: fx.Node) -> list[fx.Node]:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return []
    schema = node.target._schema
    found: list[Any] = []
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            found += value if isinstance(value, list | tuple) else [value]
    return [value for value in found if isinstance(value, fx.Node)]


def _storage(node: fx.Node) -> int | None:
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _drop_copies_to_themselves(graph: fx.Graph) -> None:
    """``self.table = self.table.to(x.device)``: where nothing is converted, the buffer is written with itself."""
    for node in list(graph.nodes):
        if node.target is not aten.copy_.default or node.users:
            continue
        written, source = node.args[:2]
        if not isinstance(written, fx.Node) or not isinstance(source, fx.Node):
            continue
        if (
            _storage(written) is not None
            and _storage(written) == _storage(source)
            and _layout(written) == _layout(source)
        ):
            graph.erase_node(node)


def _join_aliases(graph: fx.Graph) -> None:
    """An operator that hands back its input *is* its input. Raises `TraceError` for a written alias of other layout."""
    touched = {_storage(written) for _, written in _writes(graph)}
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or _written(node):
            continue
        if is_eval_dropout(node):
            same = node.args[0]
        elif any(a.alias_info is not None for a in node.target._schema.arguments):
            continue  # torch knows
        else:
            same = next(
                (n for n in node.all_input_nodes if _storage(n) is not None and _storage(n) == _storage(node)), None
            )
        if not isinstance(same, fx.Node):
            continue
        if _layout(same) != _layout(node):
            if _storage(node) in touched:
                raise TraceError(
                    f"the model writes in place into the result of {node.target} ({node.name}), which shares its "
                    f"memory with {same.name}; write `x = x + y` in place of `x += y` there"
                )
            continue
        node.replace_all_uses_with(same)
        graph.erase_node(node)


def _layout(node: fx.Node) -> Any:
    value = node.meta["val"]
    return value.dtype, tuple(value.shape), tuple(value.stride()), value.storage_offset()


def _is_simple(node: fx.Node, written: fx.Node) -> bool:
    """What is written is a fresh tensor that no other value shares, and the operator has a functional twin."""
    if written.op != "call_function" or len(_written(node)) != 1:
        return False
    if _functional_variant(node.target) is None or written.target is operator.getitem:
        return False
    holders: dict[int | None, list[fx.Node]] = defaultdict(list)
    for other in node.graph.nodes:
        holders[_storage(other)].append(other)
    others = [n for n in holders[_storage(written)] if n is not written]
    # The results of in-place operators are the tensor they wrote.
    return all(_written(n) and n.args[0] in (written, *others) for n in others)


def _functional_variant(target: Any) -> torch._ops.OpOverload | None:
    packet = getattr(torch.ops.aten, target._schema.name.split("::")[1].rstrip("_"), None)
    twin = getattr(packet, target._overloadname, None) if packet is not None else None
    return None if twin is None or twin._schema.is_mutable else twin


def _keeps_state(exported: torch.export.ExportedProgram) -> bool:
    return any(spec.kind is not OutputKind.USER_OUTPUT for spec in exported.graph_signature.output_specs)


def _refuse_state(exported: torch.export.ExportedProgram) -> None:
    """A buffer that is written must not reach an output: the next call would read what this one wrote."""
    signature = exported.graph_signature
    written = {**signature.buffers_to_mutate, **getattr(signature, "parameters_to_mutate", {})}
    if not written:
        return
    names = {target: node for node, target in (signature.inputs_to_buffers | signature.inputs_to_parameters).items()}
    nodes = {node.name: node for node in exported.graph.nodes}
    live = {nodes[name] for name in signature.user_outputs if name in nodes}
    for node in reversed(list(exported.graph.nodes)):
        if node in live:
            live.update(node.all_input_nodes)
    for target in written.values():
        if nodes[names[target]] in live:
            raise TraceError(
                f"the model reads and writes its buffer {target!r} in forward(): what one call leaves there changes "
                "the next, and a graph has no memory. Switch the cache (or running statistics) off, or make it an input"
            )
