"""Preparing an exported program: one functional graph of ATen operators, without asserts, guards and regions.

In-place operators become functional, eval-mode dropout and no-grad regions disappear, and the graph's parameters are
the model's own objects again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from passes.frontend.canonical import canonicalise
from passes.frontend.explain import explained
from passes.frontend.functional import functional, is_eval_dropout, is_functional, without_writes
from passes.ir.graph import ASSERTS, copy_graph, eliminate_dead_code, set_attribute
from passes.ir.info import TraceError

aten = torch.ops.aten


# The same numbers, once nothing is written in place.
_IDENTITIES = frozenset(
    {
        aten.detach_.default,
        aten.requires_grad_.default,
        aten.detach.default,
        aten.alias.default,
        aten.lift_fresh_copy.default,
        aten.contiguous.default,
    }
)

Step = Callable[[fx.GraphModule], object]

# In this order; each leaves a graph that computes what the one before did.
STEPS: tuple[tuple[str, Step], ...] = (
    ("functionalise", without_writes),
    ("drop-noise", lambda graph_module: _drop_noise(graph_module)),
    ("canonicalise", canonicalise),
)


def prepare(
    exported: torch.export.ExportedProgram,
    source: nn.Module,
    after: Callable[[str, fx.GraphModule], None] | None = None,
    plain: fx.GraphModule | None = None,
) -> fx.GraphModule:
    """A prepared graph over the parameters of ``source``. ``after`` is shown the graph after each step, by name.

    ``plain``: `as_graph` of the program, if it is there already. Raises `TraceError` that names the step and the node
    it stopped at.
    """
    if plain is not None and is_functional(exported):
        graph_module = copy_graph(plain)
    else:
        graph_module = as_graph(functional(exported), source)
    if after is not None:
        after("torch's functionalisation", graph_module)
    for name, step in STEPS:
        with explained(f"step {name}"):
            step(graph_module)
        graph_module.graph.lint()
        if after is not None:
            after(name, graph_module)
    graph_module.recompile()
    return graph_module


def as_graph(exported: torch.export.ExportedProgram, source: nn.Module) -> fx.GraphModule:
    """The program as a plain graph module, its regions inlined, over the parameters of ``source``."""
    exported_module = exported.module(check_guards=False)
    assert isinstance(exported_module, fx.GraphModule)
    _inline_higher_order(exported_module)
    _bind_parameters(exported_module, source)
    return copy_graph(exported_module)


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
        if not bodies[0].users:  # or the body would stay a module of the graph
            graph_module.graph.erase_node(bodies[0])


def _drop_noise(graph_module: fx.GraphModule) -> None:
    """Erase asserts and guards; eval-mode dropout, detach, contiguous and the like become their input."""
    graph = graph_module.graph
    for node in reversed(list(graph.nodes)):
        guard = node.op == "call_module" and node.target == "_guards_fn"
        if guard or (node.op == "call_function" and node.target in ASSERTS and not node.users):
            graph.erase_node(node)
        elif node.op == "call_function" and (node.target in _IDENTITIES or is_eval_dropout(node)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    eliminate_dead_code(graph_module)


def _bind_parameters(graph_module: fx.GraphModule, source: nn.Module) -> None:
    """Make the graph's parameter objects the source's (run_decompositions and tying may have copied or renamed)."""
    originals = dict(source.named_parameters(remove_duplicate=False)) | dict(
        source.named_buffers(remove_duplicate=False)
    )
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and str(node.target) in originals:
            set_attribute(graph_module, str(node.target), originals[str(node.target)])
