"""Preparing an exported program: one functional graph of ATen operators, without asserts, guards and regions.

In-place operators become functional, eval-mode dropout and no-grad regions disappear, and the graph's parameters are
the model's own objects again.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from passes.frontend.canonical import canonicalise
from passes.ir.graph import ASSERTS, eliminate_dead_code, set_attribute
from passes.ir.info import TraceError

aten = torch.ops.aten


_IDENTITIES = {
    aten.detach_.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
    aten.contiguous.default,
}


def prepare(exported: torch.export.ExportedProgram, source: nn.Module) -> fx.GraphModule:
    if not _simply_functional(exported.graph):
        exported = exported.run_decompositions({})
    graph_module = exported.module(check_guards=False)
    assert isinstance(graph_module, fx.GraphModule)
    _inline_higher_order(graph_module)
    _functionalise(graph_module)
    _drop_noise(graph_module)
    canonicalise(graph_module)
    _bind_parameters(graph_module, source)
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def _mutated_argument(node: fx.Node) -> fx.Node | None:
    """The tensor that an in-place operator writes, or None."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    schema = node.target._schema
    if not schema.is_mutable:
        return None
    first = node.args[0] if node.args else None
    return first if isinstance(first, fx.Node) else None


def _is_view(node: fx.Node) -> bool:
    return (
        node.op == "call_function"
        and isinstance(node.target, torch._ops.OpOverload)
        and any(a.alias_info is not None for a in node.target._schema.arguments)
    ) or node.target is operator.getitem


def _functional_variant(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    packet = getattr(torch.ops.aten, target._schema.name.split("::")[1].rstrip("_"), None)
    return getattr(packet, target._overloadname, None) if packet is not None else None


def _simply_functional(graph: fx.Graph) -> bool:
    """Every in-place operator writes a fresh tensor (no view of another) and has a functional twin."""
    for node in graph.nodes:
        written = _mutated_argument(node)
        if written is None or node.target in _IDENTITIES:
            continue
        if written.op != "call_function" or _is_view(written) or _functional_variant(node.target) is None:
            return False
        if any(_is_view(user) for user in written.users):
            return False
    return True


def _functionalise(graph_module: fx.GraphModule) -> None:
    """``x.add_(y)`` becomes ``add(x, y)``, and later uses of x read the result."""
    graph = graph_module.graph
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        written = _mutated_argument(node)
        if written is None or node.target in _IDENTITIES:
            continue
        functional = _functional_variant(node.target)
        if functional is None:
            raise TraceError(f"in-place operator {node.target} ({node.name}) has no functional form bpc can use")
        node.target = functional
        for user in list(written.users):
            if user is not node and position.get(user, -1) > position[node]:
                user.replace_input_with(written, node)


def _inline_higher_order(graph_module: fx.GraphModule) -> None:
    """Inline ``wrap_with_set_grad_enabled`` / ``wrap_with_autocast`` regions: they do not change eval numerics here."""
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.HigherOrderOperator):
            continue
        name = node.target.name()
        bodies = [a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]
        body = getattr(graph_module, str(bodies[0].target), None) if bodies else None
        if name not in ("wrap_with_set_grad_enabled", "wrap_with_autocast") or not isinstance(body, fx.GraphModule):
            raise TraceError(f"higher-order operator {name} ({node.name}) cannot be inlined; remove it from the model")
        if name == "wrap_with_autocast" and node.args[2]:
            raise TraceError("an enabled torch.autocast region inside forward() cannot be traced; call the model in it")
        inputs = node.args[node.args.index(bodies[0]) + 1 :]
        _inline_higher_order(body)
        placeholders = [n for n in body.graph.nodes if n.op == "placeholder"]
        mapping: dict[fx.Node, Any] = dict(zip(placeholders, inputs, strict=True))
        with graph_module.graph.inserting_before(node):
            for inner in body.graph.nodes:
                if inner.op == "get_attr" and not hasattr(graph_module, str(inner.target)):
                    setattr(graph_module, str(inner.target), getattr(body, str(inner.target)))
                if inner.op not in ("placeholder", "output"):
                    mapping[inner] = graph_module.graph.node_copy(inner, mapping.__getitem__)
        result: Any = body.graph.output_node().args[0]
        outputs = result if isinstance(result, list | tuple) else (result,)
        for user in list(node.users):
            if user.target is operator.getitem:
                position: Any = user.args[1]
                user.replace_all_uses_with(mapping[outputs[position]])
                graph_module.graph.erase_node(user)
        if node.users:
            node.replace_all_uses_with(mapping[outputs[0]])
        graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()


def _drop_noise(graph_module: fx.GraphModule) -> None:
    """Erase asserts and guards; eval-mode dropout, detach, contiguous and the like become their input."""
    graph = graph_module.graph
    for node in reversed(list(graph.nodes)):
        guard = node.op == "call_module" and node.target == "_guards_fn"
        if guard or (node.op == "call_function" and node.target in ASSERTS and not node.users):
            graph.erase_node(node)
        elif node.op == "call_function" and (node.target in _IDENTITIES or _is_eval_dropout(node)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    eliminate_dead_code(graph_module)


def _is_eval_dropout(node: fx.Node) -> bool:
    return node.target in (aten.dropout.default, aten.feature_dropout.default) and not node.args[2]


def _bind_parameters(graph_module: fx.GraphModule, source: nn.Module) -> None:
    """Make the graph's parameter objects the source's (run_decompositions and tying may have copied or renamed)."""
    originals = dict(source.named_parameters(remove_duplicate=False)) | dict(
        source.named_buffers(remove_duplicate=False)
    )
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and str(node.target) in originals:
            set_attribute(graph_module, str(node.target), originals[str(node.target)])
