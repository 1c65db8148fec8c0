"""``torch.export``, asked for a functional graph of every size the model allows. torch's private corners end here."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import Dim
from torch.utils import _pytree as pytree

from passes.frontend.explain import export_error
from passes.frontend.run import own_copy, run_model
from passes.ir.info import TraceError
from passes.ir.session import forget_sizes_of
from passes.ir.sizes import is_symbolic

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def export(model: nn.Module, args: Any, kwargs: Any, dynamic_shapes: Any) -> torch.export.ExportedProgram:
    """The exported program of a model in the mode it is in. Raises `TraceError`."""
    _refuse_reserved_names(model)
    # Aliases: torch.export marks the tensors it is given as dynamic, and a later export would find the marks.
    given = pytree.tree_map_only(torch.Tensor, lambda t: t.detach(), (args, kwargs))
    try:
        with torch.no_grad(), named_inputs(model, args, kwargs):
            exported = torch.export.export(model, *given, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise export_error(model, error, args, kwargs, _eager_error(model, args, kwargs)) from error
    for node in exported.graph.nodes:
        if isinstance(value := node.meta.get("val"), FakeTensor) and value.fake_mode.shape_env is not None:
            forget_sizes_of(value.fake_mode.shape_env)
            break
    return exported


def export_dynamic(model: nn.Module, args: Any, kwargs: Any) -> torch.export.ExportedProgram:
    """Every dim dynamic that the model allows, and that means data.

    A size that the model pins in a roundabout way (2 · (C // 2) must be the 6 features of a linear) is fixed as well:
    left symbolic, channels would look like data to every analysis.
    """
    exported = export(model, args, kwargs, dynamic_shapes(model, args, kwargs))
    pinned = _pinned_dims(exported, args, kwargs)
    if not pinned:
        return exported
    data = _data_dims(args, kwargs)
    free = {of: [d for d in dims if (of, d) not in pinned] for of, dims in data.items()}
    return export(model, args, kwargs, dynamic_shapes(model, args, kwargs, free))


def dynamic_shapes(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: Mapping[int, list[int]] | None = None
) -> dict[str, Any]:
    """torch.export's argument. ``dims``: {id of an example tensor: its dynamic dims}; default: all but images'."""

    data = _data_dims(args, kwargs) if dims is None else dims

    def spec_of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return None
        dynamic = data[id(leaf)]
        return {d: Dim.AUTO if d in dynamic else Dim.STATIC for d in range(leaf.dim())}

    with named_inputs(model, args, kwargs):
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    return {name: _specs(spec_of, value) for name, value in bound.arguments.items()}


def _specs(spec_of: Callable[[Any], Any], value: Any) -> Any:
    """torch.export takes specs of what others registered as containers in lists, not in such containers."""
    if type(value) is dict:
        return {key: _specs(spec_of, inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_specs(spec_of, inner) for inner in value)
    registered = pytree.SUPPORTED_NODES.get(type(value))
    return spec_of(value) if registered is None else [_specs(spec_of, i) for i in registered.flatten_fn(value)[0]]


def dims_left_dynamic(
    graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[int, list[int]]:
    """{id of an example tensor: its dims that the trace left dynamic}.

    The model's own checks (an image size, say) fixed the others and are gone from the graph: a second export must not
    make them dynamic again.
    """
    values = [n.meta.get("val") for n in graph_module.graph.nodes if n.op == "placeholder"]
    fakes = [value for value in values if isinstance(value, torch.Tensor)]
    return {
        id(tensor): [d for d, s in enumerate(fake.shape) if is_symbolic(s)]
        for tensor, fake in zip(_tensors(args, kwargs), fakes, strict=True)
    }


@contextlib.contextmanager
def named_inputs(model: nn.Module, args: Any, kwargs: Any) -> Iterator[None]:
    """Inside, ``forward`` names every keyword it is given.

    torch.export mixes up inputs that arrive through ``**kwargs`` (flags like ``output_attentions`` do).
    """
    signature = inspect.signature(model.forward)
    rest = next((p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    bound = signature.bind(*args, **kwargs).arguments if rest is not None else {}
    if rest is None or rest.name not in bound:
        yield
        return
    forward = model.forward
    named = [p for p in signature.parameters.values() if p is not rest]
    named += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in bound[rest.name]]

    def with_names(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    with_names.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
    own = model.__dict__.get("forward")
    model.__dict__["forward"] = with_names
    try:
        yield
    finally:
        del model.__dict__["forward"]
        if own is not None:
            model.__dict__["forward"] = own


def _data_dims(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int, list[int]]:
    """{id of an example tensor: its dims that may be data}: all but an image's channels, height and width.

    An image is an argument of its own. Tensors of rank 4 in an argument that holds several are a cache of keys and
    values, whose third dim is a length; the model itself fixes their heads. torch.export takes a size of 1 for fixed.
    """
    found: dict[int, list[int]] = {}
    for value in (*args, *kwargs.values()):
        for leaf in _tensors((value,), {}):
            image = leaf is value and leaf.dim() >= 4 and leaf.is_floating_point()
            dims = range(1) if image else range(leaf.dim())
            found[id(leaf)] = [d for d in dims if leaf is value or leaf.shape[d] > 1]
    return found


def _tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]


def _pinned_dims(exported: torch.export.ExportedProgram, args: Any, kwargs: Any) -> set[tuple[int, int]]:
    """(id of an example tensor, dim) of the sizes that an equation holds near the example's: no multiple solves it."""
    inputs = [
        n for n in exported.graph.nodes if n.op == "placeholder" and n.name in exported.graph_signature.user_inputs
    ]
    fakes = [n.meta["val"] for n in inputs if isinstance(n.meta.get("val"), torch.Tensor)]
    env = fakes[0].fake_mode.shape_env if fakes else None
    equations = [env.replace(guard.expr) for guard in env.guards] if env is not None else []
    hints = {
        size.node.expr: int(size.node.hint)
        for fake in fakes
        for size in fake.shape
        if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol)
    }
    pinned = {
        symbol
        for equation in equations
        if isinstance(equation, sympy.Eq) and len(equation.free_symbols) == 1
        for symbol in equation.free_symbols & hints.keys()
        if not any(equation.xreplace({symbol: sympy.Integer(n * hints[symbol])}) == sympy.true for n in (2, 3, 4, 8))
    }
    return {
        (id(tensor), dim)
        for tensor, fake in zip(_tensors(args, kwargs), fakes, strict=True)
        for dim, size in enumerate(fake.shape)
        if isinstance(size, torch.SymInt) and size.node.expr.free_symbols & pinned
    }


def _refuse_reserved_names(model: nn.Module) -> None:
    taken = fx.GraphModule(nn.Module(), fx.Graph())
    mine = [*dict(model.named_children()), *dict(model.named_parameters(recurse=False))]
    mine += dict(model.named_buffers(recurse=False))
    for name in mine:
        if not isinstance(model, fx.GraphModule) and hasattr(taken, name):
            raise TraceError(
                f"{type(model).__name__} cannot be traced: torch.fx.GraphModule has an attribute {name!r} of its own, "
                f"so no graph can hold the model's. Rename it, or trace a module that holds the model as a submodule"
            )


def _eager_error(model: nn.Module, args: Any, kwargs: Any) -> Exception | None:
    """What the model raises on the example, run as it is; None if it runs."""
    try:
        run_model(model, *own_copy((args, kwargs)))
    except Exception as error:
        return error
    return None
