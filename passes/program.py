"""Tracing: from an ``nn.Module`` to one functional ``fx.GraphModule`` of ATen operators.

`trace` is the front end of every pass. It wraps ``torch.export`` (non-strict, dynamic sizes) and then *prepares* the
graph: in-place operators become functional, asserts, guards, dropouts in eval mode and autocast/no-grad regions
disappear, tied parameters are named once. The parameters of the result are the model's own parameter objects.

Everything that touches torch.export's private corners lives in this file.
"""

from __future__ import annotations

import inspect
import operator
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch.export import Dim
from torch.utils import _pytree as pytree
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import OptimizedPythonReferenceAnalysis

from passes.canonical import canonicalise

aten = torch.ops.aten

_META_KEY = "bpc_trace"


class TraceError(RuntimeError):
    """The model cannot be traced; the message names the line of the model and what to do."""


@dataclass
class TraceInfo:
    """What `trace` knows beside the graph; kept in ``graph_module.meta`` and carried along by every pass.

    ``args``/``kwargs`` are the example inputs the graph was traced with (batch and sequence at least 2);
    ``dynamic_shapes`` is torch.export's argument of that name; ``aliases`` maps every name of a tied parameter to
    the name the graph uses.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any
    aliases: dict[str, str] = field(default_factory=dict)


def trace_info(graph_module: fx.GraphModule) -> TraceInfo:
    """The `TraceInfo` of a traced graph. Raises ValueError for a graph that `trace` did not make."""
    info = graph_module.meta.get(_META_KEY)
    if info is None:
        raise ValueError("this GraphModule carries no trace information; obtain it from passes.trace(model, inputs)")
    return info


def trace(model: nn.Module, example_inputs: Any = None, *, dynamic: bool = True) -> fx.GraphModule:
    """Trace ``model`` in eval mode into an ``fx.GraphModule`` of functional ATen operators.

    Parameters
    ----------
    model: any module ``torch.export`` can trace. Its training flag is restored afterwards.
    example_inputs: a dict of keyword arguments, a tuple of positional ones, one tensor, or None, in which case the
        model's own ``dummy_inputs`` (Hugging Face) are taken. A size of 1 in the batch (or sequence) dimension does
        not freeze it: the example is repeated.
    dynamic: trace every dimension the model does not constrain as dynamic (batch, sequence). False keeps the
        example's sizes.

    Returns the graph; its parameters *are* the model's (same objects, same names). Raises `TraceError`.
    """
    args, kwargs = normalise_inputs(model, example_inputs)
    if dynamic:
        args, kwargs = _widen_unit_dims(args, kwargs)
    dynamic_shapes = _dynamic_shapes(model, args, kwargs) if dynamic else None
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        exported = _export(model, args, kwargs, dynamic_shapes)
    finally:
        for module, training in modes.items():
            module.training = training
    graph_module = _prepare(exported, model)
    if dynamic:
        dynamic_shapes = _dynamic_shapes(model, args, kwargs, _dynamic_dims(graph_module, args, kwargs))
    graph_module.meta[_META_KEY] = TraceInfo(args, kwargs, dynamic_shapes, _aliases(graph_module, model))
    return graph_module


def retrace(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Export a rewritten graph again, so that its node metadata (shapes, dtypes) is true. Parameters stay shared."""
    info = trace_info(graph_module)
    exported = _export(graph_module, info.args, info.kwargs, info.dynamic_shapes)
    result = _prepare(exported, graph_module)
    result.meta[_META_KEY] = info
    return result


def exported_program(graph_module: fx.GraphModule) -> torch.export.ExportedProgram:
    """A fresh ``ExportedProgram`` of a traced or rewritten graph, for ONNX, ``.pt2`` and AOTInductor."""
    info = trace_info(graph_module)
    return _export(graph_module, info.args, info.kwargs, info.dynamic_shapes)


# ---------------------------------------------------------------------------------------------------------- inputs


def normalise_inputs(model: nn.Module, example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) from a dict, a tuple or list, a tensor, or None (the model's ``dummy_inputs``)."""
    if example_inputs is None:
        example_inputs = getattr(model, "dummy_inputs", None)
        if example_inputs is None:
            raise TraceError(
                f"{type(model).__name__} has no `dummy_inputs`; pass example_inputs, e.g. "
                "{'input_ids': torch.ones(2, 16, dtype=torch.long)}"
            )
        parameters = inspect.signature(model.forward).parameters
        example_inputs = {name: value for name, value in example_inputs.items() if name in parameters}
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), {name: value for name, value in example_inputs.items() if value is not None}
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return tuple(example_inputs), {}
    raise TraceError(
        f"example_inputs is a {type(example_inputs).__name__}; pass a dict of keyword arguments, a tuple or a tensor"
    )


def _widen_unit_dims(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Repeat the example where batch or sequence is 1: torch.export specialises sizes 0 and 1."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim() > 0]
    if tensors and all(t.shape[0] == 1 for t in tensors):
        leaves = [_repeat(leaf, 0) for leaf in leaves]
    tokens = [leaf for leaf in leaves if _is_token_like(leaf)]
    if tokens and all(t.shape[1] == 1 for t in tokens):
        leaves = [_repeat(leaf, 1, 3) if _is_token_like(leaf) else leaf for leaf in leaves]
    return pytree.tree_unflatten(leaves, spec)


def _is_token_like(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dim() == 2 and not leaf.is_floating_point()


def _repeat(leaf: Any, dim: int, count: int = 2) -> Any:
    if not isinstance(leaf, torch.Tensor) or leaf.dim() <= dim:
        return leaf
    return torch.cat([leaf] * count, dim)


def _dynamic_dims(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int, list[int]]:
    """{id of an example tensor: its dims that the trace left dynamic}.

    The model's own checks (an image size, say) fixed the others and are gone from the graph: a second export must not
    make them dynamic again.
    """
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    values = [n.meta.get("val") for n in graph_module.graph.nodes if n.op == "placeholder"]
    fakes = [value for value in values if isinstance(value, torch.Tensor)]
    return {
        id(tensor): [d for d, s in enumerate(fake.shape) if isinstance(s, torch.SymInt) and not s.node.expr.is_number]
        for tensor, fake in zip(tensors, fakes, strict=True)
    }


def _dynamic_shapes(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: Mapping[int, list[int]] | None = None
) -> dict[str, Any]:
    def spec_of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return None
        dynamic = range(leaf.dim()) if dims is None else dims[id(leaf)]
        return {d: Dim.AUTO if d in dynamic else Dim.STATIC for d in range(leaf.dim())}

    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    return {name: pytree.tree_map(spec_of, value) for name, value in bound.arguments.items()}


# --------------------------------------------------------------------------------------------------------- export


def _export(model: nn.Module, args: Any, kwargs: Any, dynamic_shapes: Any) -> torch.export.ExportedProgram:
    # Aliases: torch.export marks the tensors it is given as dynamic, and a later export would find the marks.
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda t: t.detach(), (args, kwargs))
    try:
        with torch.no_grad():
            return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise TraceError(_explain(model, error)) from error


def _explain(model: nn.Module, error: Exception) -> str:
    """Say which line of the model failed and what to try."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
    frames = [f for f in frames if f.filename != __file__]
    where = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}: {frames[-1].line}" if frames else "?"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{type(model).__name__} cannot be traced: {type(error).__name__}: {first}\n"
        f"  at {where}\n"
        "  Data-dependent Python control flow (if/for on tensor values, .item()) cannot be traced: move it out of "
        "forward(), or replace it with torch.where. If an argument selects the branch (e.g. use_cache=False, "
        "return_dict=True), pass it in example_inputs. dynamic=False traces the example's sizes only."
    )


# -------------------------------------------------------------------------------------------------------- prepare

_IDENTITIES = {
    aten.detach_.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
    aten.contiguous.default,
}


def _prepare(exported: torch.export.ExportedProgram, source: nn.Module) -> fx.GraphModule:
    if not _simply_functional(exported.graph):
        exported = exported.run_decompositions({})
    graph_module = exported.module(check_guards=False)
    assert isinstance(graph_module, fx.GraphModule)
    _inline_higher_order(graph_module)
    _functionalise(graph_module)
    _drop_noise(graph_module)
    canonicalise(graph_module.graph)
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
                    mapping[inner] = graph_module.graph.node_copy(inner, lambda n: mapping[n])
        outputs = body.graph.output_node().args[0]
        outputs = outputs if isinstance(outputs, list | tuple) else (outputs,)
        for user in list(node.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(mapping[outputs[user.args[1]]])
                graph_module.graph.erase_node(user)
        if node.users:
            node.replace_all_uses_with(mapping[outputs[0]])
        graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()


def _drop_noise(graph_module: fx.GraphModule) -> None:
    """Erase asserts and guards; eval-mode dropout, detach, contiguous and the like become their input."""
    graph = graph_module.graph
    for node in reversed(list(graph.nodes)):
        if (node.op == "call_module" and node.target == "_guards_fn") or (node.op == "call_function" and _is_assert(node.target) and not node.users):
            graph.erase_node(node)
        elif node.op == "call_function" and (node.target in _IDENTITIES or _is_eval_dropout(node)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    eliminate_dead_code(graph_module)


def _is_assert(target: Any) -> bool:
    return target in (
        aten._assert_tensor_metadata.default,
        aten._assert_scalar.default,
        aten._assert_async.msg,
        torch.ops.aten.sym_constrain_range_for_size.default,
        torch.ops.aten.sym_constrain_range.default,
    )


def _is_eval_dropout(node: fx.Node) -> bool:
    return node.target in (aten.dropout.default, aten.feature_dropout.default) and not node.args[2]


def eliminate_dead_code(graph_module: fx.GraphModule) -> bool:
    """Remove nodes nobody reads; attention and random operators too, whose results matter only when used."""
    erased = False
    for node in reversed(list(graph_module.graph.nodes)):
        if node.op in ("call_function", "get_attr", "call_module") and not node.users and not _is_assert(node.target):
            graph_module.graph.erase_node(node)
            erased = True
    return erased


def _bind_parameters(graph_module: fx.GraphModule, source: nn.Module) -> None:
    """Make the graph's parameter objects the source's (run_decompositions and tying may have copied or renamed)."""
    originals = dict(source.named_parameters(remove_duplicate=False)) | dict(
        source.named_buffers(remove_duplicate=False)
    )
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and str(node.target) in originals:
            set_attribute(graph_module, str(node.target), originals[str(node.target)])


def _aliases(graph_module: fx.GraphModule, model: nn.Module) -> dict[str, str]:
    """{every parameter name of the model: the name the graph reads it under}."""
    used = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    by_identity: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_identity.setdefault(id(parameter), []).append(name)
    aliases = {}
    for names in by_identity.values():
        canonical = next((n for n in names if n in used), names[0])
        aliases.update(dict.fromkeys(names, canonical))
    return aliases


# ------------------------------------------------------------------------------------------------------ attributes


def get_attribute(root: nn.Module, name: str) -> Any:
    """The object under a dotted name."""
    for part in name.split("."):
        root = getattr(root, part)
    return root


def set_attribute(root: nn.Module, name: str, value: torch.Tensor | nn.Parameter) -> None:
    """Put a parameter or buffer under a dotted name, making the containers on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(value, nn.Parameter):
        root._buffers.pop(leaf, None)
        root.__dict__.pop(leaf, None)
        root.register_parameter(leaf, value)
    else:
        root._parameters.pop(leaf, None)
        root.__dict__.pop(leaf, None)
        root.register_buffer(leaf, value, persistent=False)


def copy_graph(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy that a pass may write to: own graph and containers, shared tensors."""
    graph = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(graph_module.graph, mapping, return_output_node=True)
    assert output is not None
    new_output = graph.output(output[0])
    new_output.meta = dict(output[1].meta)
    graph._codegen = graph_module.graph._codegen
    root = nn.Module()
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            set_attribute(root, str(node.target), get_attribute(graph_module, str(node.target)))
        elif node.op == "call_module":
            _set_module(root, str(node.target), graph_module.get_submodule(str(node.target)))
    result = fx.GraphModule(root, graph)
    result.meta = dict(graph_module.meta)
    result.training = False
    return result


def _set_module(root: nn.Module, name: str, module: nn.Module) -> None:
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(leaf, module)


def size_argument(graph: fx.Graph, size: Any) -> Any:
    """An argument that yields a size at run time: the int itself, or a node that computes it from the inputs.

    New nodes go to the graph's current insertion point.
    """
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if expression.is_number:
        return int(expression)
    known: dict[sympy.Symbol, fx.Proxy] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for dim, extent in enumerate(value.shape):
            symbol = extent.node.expr if isinstance(extent, torch.SymInt) else None
            if isinstance(symbol, sympy.Symbol) and symbol in expression.free_symbols and symbol not in known:
                extent_node = graph.call_function(aten.sym_size.int, (node, dim))
                extent_node.meta["val"] = extent
                known[symbol] = fx.Proxy(extent_node)
    missing = expression.free_symbols - known.keys()
    if missing:
        raise TraceError(f"size {expression} depends on {missing}, which no input of the model shows")
    computed = sympy_interp(OptimizedPythonReferenceAnalysis, known, expression)
    return computed.node if isinstance(computed, fx.Proxy) else int(computed)
