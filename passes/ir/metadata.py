"""True metadata for rewritten graphs: every node's fake tensor computed again from its inputs'.

The inputs' fake tensors, and with them the symbolic sizes and what the model's own checks established about them, are
those of the trace. Exporting the graph again would lose them (the checks are no longer in the graph), and takes five
times as long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from passes.ir.graph import get_attribute
from passes.ir.sizes import is_symbolic


def fake_mode(graph: fx.Graph) -> FakeTensorMode:
    """The mode the graph's metadata lives in. Raises ValueError for a graph without metadata."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor):
            return value.fake_mode
    raise ValueError("the graph carries no fake tensors; obtain it from passes.trace(model, inputs)")


def propagate_metadata(graph_module: fx.GraphModule, *, known: bool = True) -> None:
    """Write ``meta["val"]`` of every node but the inputs, in place. Raises what an operator raises on wrong shapes.

    Some operators look at a symbolic size as a number, which would fix it to the example's: nothing they learn about
    the inputs' sizes is kept, and a dim that was symbolic stays so. ``known`` is False where the metadata so far does
    not say which are (its symbols have just been renamed).
    """
    mode = fake_mode(graph_module.graph)
    example = _Example(graph_module) if known else None
    values: dict[fx.Node, Any] = {}
    with torch.no_grad(), mode, enable_python_dispatcher(), _sizes_left_alone(mode):
        for node in graph_module.graph.nodes:
            if node.op == "output":
                continue
            if node.op not in ("placeholder", "get_attr", "call_function"):
                raise ValueError(f"{node.op} {node.name} cannot be propagated")
            found = node.meta.get("val") if node.op == "placeholder" else None
            if found is None and example is not None:
                found = example.with_symbols(node)
            if found is None and node.op == "get_attr":
                found = mode.from_tensor(get_attribute(graph_module, str(node.target)), static_shapes=True)
            elif found is None and node.op == "call_function":
                found = _computed(node, values, known)
            values[node] = node.meta["val"] = found


def _computed(node: fx.Node, values: dict[fx.Node, Any], known: bool) -> Any:
    new, old = _call(node, values), node.meta.get("val")
    if node.meta.get("unbacked_bindings"):
        new = _with_sizes_of_data(new, old)
    return _with_symbols(new, old) if known else new


class _Example:
    """The graph at the example's sizes, where inferring shapes costs a tenth of what it does with symbols.

    A dim that was symbolic and has its size still is the same expression: what a rewrite changes are numbers of
    channels, which would change the size.
    """

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self._root = graph_module
        self._mode = FakeTensorMode()
        self._values: dict[fx.Node, Any] = {}  # none of what depends on the data
        with torch.no_grad(), self._mode:
            for node in graph_module.graph.nodes:
                with contextlib.suppress(Exception):  # the way with symbols says what is wrong
                    self._values[node] = self._value(node)

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            value = node.meta["val"]
            return torch.empty(_hints(value.shape), dtype=value.dtype, device=value.device)  # type: ignore[arg-type]
        if node.op == "get_attr":
            return self._mode.from_tensor(get_attribute(self._root, str(node.target)), static_shapes=True)
        return _call(node, self._values)

    def with_symbols(self, node: fx.Node) -> Any:
        """The metadata of a node; None where it takes symbols to know it."""
        return _resized(node.meta.get("val"), self._values.get(node))


def _hint(size: Any) -> int | None:
    """The example's size; None for one that depends on the data."""
    if isinstance(size, int):
        return size
    hint: int | None = size.node.hint if size.node.has_hint() else None
    return hint


def _hints(sizes: Iterable[Any]) -> tuple[int | None, ...]:
    return tuple(map(_hint, sizes))


def _resized(old: Any, new: Any) -> Any:
    """``old`` with the static sizes of ``new``, which has the example's sizes throughout; None where that is open."""
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        parts = [_resized(a, b) for a, b in zip(old, new, strict=True)]
        return None if any(part is None for part in parts) else type(old)(parts)
    if isinstance(old, torch.SymInt):
        return old if _hint(old) == new else None
    if not isinstance(old, torch.Tensor) or not isinstance(new, torch.Tensor):
        return None
    if (old.dtype, old.device, old.dim()) != (new.dtype, new.device, new.dim()):
        return None
    if any(is_symbolic(a) and _hint(a) != b for a, b in zip(old.shape, new.shape, strict=True)):
        return None
    if _hints(old.shape) == tuple(new.shape) and _hints(old.stride()) == new.stride():
        return old
    if not new.is_contiguous():
        return None  # its strides may be symbolic as well
    sizes = [a if is_symbolic(a) else b for a, b in zip(old.shape, new.shape, strict=True)]
    return torch.empty(sizes, dtype=new.dtype, device=new.device)


def _sizes_left_alone(mode: FakeTensorMode) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if mode.shape_env is None else mode.shape_env.suppress_guards()


def _with_symbols(new: Any, old: Any) -> Any:
    """``new`` with the symbolic sizes of ``old`` where it has plain numbers."""
    if not isinstance(new, torch.Tensor) or not isinstance(old, torch.Tensor) or new.dim() != old.dim():
        return new
    fixed = [isinstance(a, int) and is_symbolic(b) for a, b in zip(new.shape, old.shape, strict=True)]
    if not any(fixed):
        return new
    sizes = [b if lost else a for a, b, lost in zip(new.shape, old.shape, fixed, strict=True)]
    return torch.empty(sizes, dtype=new.dtype, device=new.device)


def _with_sizes_of_data(new: Any, old: Any) -> Any:
    """``new`` with the symbols that stand in ``old`` for numbers read from data (aten.item, nonzero).

    What the model checks of them (``torch._check``, a size is not negative) is known of the trace's symbols only.
    """
    if not isinstance(new, torch.Tensor) or not isinstance(old, torch.Tensor):
        return old
    sizes = [
        b if isinstance(b, torch.SymInt) and free_unbacked_symbols(b) else a
        for a, b in zip(new.shape, old.shape, strict=True)
    ]
    return torch.empty(sizes, dtype=new.dtype, device=new.device)


def infer(node: fx.Node) -> Any:
    """The fake result of a new call_function node, from its inputs' metadata."""
    mode = fake_mode(node.graph)
    with torch.no_grad(), mode, enable_python_dispatcher():
        return _call(node, {n: n.meta["val"] for n in node.all_input_nodes})


def call(graph: fx.Graph, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A new call_function node with metadata, at the graph's insertion point."""
    node = graph.call_function(target, args, kwargs)
    node.meta["val"] = infer(node)
    return node


def _call(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    assert callable(node.target)
    return node.target(*fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__))
