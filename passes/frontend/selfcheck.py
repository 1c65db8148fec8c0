"""The front end checks itself: the model, torch.export's module and the prepared graph must compute the same.

On the example, on the example with another length, and with each dynamic size set to 1 (torch.export takes for granted
that no size is 1, and records no guard). A size of 1 at which the graph is not the model any more is refused by the
graph from then on; any other difference is a `TraceError` that names the step, and the node, where it begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from passes.frontend.explain import described
from passes.frontend.guards import at_least_two
from passes.frontend.prepare import prepare
from passes.frontend.run import buffers_kept, own_copy, run_model
from passes.ir.graph import copy_graph, get_attribute, set_attribute
from passes.ir.info import Guard, InputError, TraceError
from passes.ir.sizes import tensor_of

# Of a channel's largest entry. Canonical forms may sum in another order; what they may not is compute something else.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_ULPS = 64  # of the typical channel: what a channel of cancelling sums may be off


class SelfCheck:
    """One traced model. ``inputs`` are (args, kwargs) of the example."""

    def __init__(
        self,
        model: nn.Module,
        exported: torch.export.ExportedProgram,
        reference: fx.GraphModule,
        graph: fx.GraphModule,
        inputs: Any,
    ) -> None:
        self.model, self.exported, self.reference, self.graph, self.inputs = model, exported, reference, graph, inputs

    def run(self) -> tuple[Guard, ...]:
        """Guards against sizes of 1 that the model treats apart. Raises `TraceError`."""
        tensors = [*self.model.parameters(), *self.model.buffers(), *pytree.tree_leaves(self.inputs)]
        if any(isinstance(t, torch.Tensor) and t.device.type == "meta" for t in tensors):
            return ()  # a plan without numbers
        self._compare(self.inputs, "the example")
        for shapes, inputs in self._other_sizes():
            self._compare(inputs, f"inputs of shape {shapes}")
        return tuple(self._unit_guards())

    def _compare(self, inputs: Any, where: str) -> None:
        prepared = _outputs(self.graph, inputs, self.model)
        if isinstance(prepared, InputError):
            return  # as it will for the user
        expected = _outputs(self.model, inputs, self.model)
        if not isinstance(expected, Exception) and _difference(expected, prepared) is None:
            return
        traced = _outputs(self.reference, inputs, self.model)  # which of the two steps is it?
        if isinstance(expected, Exception):  # inputs it does not take, or a kernel that only the export replaces
            if isinstance(traced, Exception):
                if where == "the example":
                    name = type(self.model).__name__
                    raise TraceError(f"{name} does not run on the example inputs: {expected}") from expected
                return
            expected = traced
        difference = _difference(expected, traced, of_model=True)
        if difference is not None:
            raise TraceError(
                f"{type(self.model).__name__} cannot be traced: torch.export's module differs from the model on "
                f"{where}: {difference}\n  The model may keep state between calls, or compute sizes or numbers that "
                "the trace took for constants (.item(), a cached table): look there, or trace with dynamic=False"
            )
        assert not isinstance(traced, Exception)
        difference = _difference(traced, prepared)
        if difference is not None and not self._is_rounding(inputs):
            raise TraceError(
                f"bpc prepared the traced graph wrongly: on {where} it differs from torch.export's module: "
                f"{difference}\n  {self._culprit(inputs, traced)}\n"
                "  This is a fault of bpc: please report it, with the model's forward"
            )

    def _is_rounding(self, inputs: Any) -> bool:
        """In float64 they agree: only the order of sums differs."""
        wide = pytree.tree_map_only(torch.Tensor, _widened, inputs)
        expected, actual = (_outputs(in_float64(g), wide, self.model) for g in (self.reference, self.graph))
        return not isinstance(expected, Exception) and _difference(expected, actual) is None

    def _culprit(self, inputs: Any, traced: list[torch.Tensor]) -> str:
        """The first preparation step whose graph differs, and the first value that does."""
        found: list[str] = []

        def after(step: str, graph_module: fx.GraphModule) -> None:
            graph_module.recompile()
            if not found and _difference(traced, _outputs(graph_module, inputs, self.model)) is not None:
                found.append(f"First at fault: step {step}, {_first_difference(self.reference, graph_module, inputs)}")

        prepare(self.exported, self.model, after=after)
        return next(iter(found), "No step is at fault alone.")

    def _sizes(self) -> list[tuple[int, int, int, str]]:
        """(position among the flat inputs, dim, example size, name) of the dims that are a symbol of their own."""
        found: list[tuple[int, int, int, str]] = []
        leaves = pytree.tree_leaves(self.inputs)
        inputs = [n for n in self.reference.graph.nodes if n.op == "placeholder"]
        for position, (node, leaf) in enumerate(zip(inputs, leaves, strict=True)):
            value = tensor_of(node)
            for dim, size in enumerate(() if value is None else value.shape):
                if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                    found.append((position, dim, leaf.shape[dim], str(node.target)))
        return found

    def _other_sizes(self) -> Iterator[tuple[str, Any]]:
        """The example cut by one in each dynamic size of 3 or more, all of equal size alike."""
        sizes = {size for _, _, size, _ in self._sizes() if size > 2}
        if sizes:
            yield self._cut({size: size - 1 for size in sizes})

    def _cut(self, sizes: dict[int, int]) -> tuple[str, Any]:
        leaves, spec = pytree.tree_flatten(own_copy(self.inputs))
        for position, dim, size, _ in self._sizes():
            leaves[position] = leaves[position].narrow(dim, 0, sizes.get(size, size))
        shapes = ", ".join("x".join(map(str, leaf.shape)) for leaf in leaves if isinstance(leaf, torch.Tensor))
        return shapes, pytree.tree_unflatten(leaves, spec)

    def _unit_guards(self) -> Iterator[Guard]:
        for unit in sorted({size for _, _, size, _ in self._sizes()}):
            _, inputs = self._cut({unit: 1})
            expected = _outputs(self.model, inputs, self.model)
            if isinstance(expected, Exception):
                continue
            graph = _outputs(self.graph, inputs, self.model)
            if not isinstance(graph, InputError) and _difference(expected, graph) is not None:
                for position, dim, size, name in self._sizes():
                    if size == unit:
                        yield at_least_two(position, dim, name)


def _outputs(run: nn.Module, inputs: Any, model: nn.Module) -> list[torch.Tensor] | Exception:
    try:
        with buffers_kept(model):
            args, kwargs = own_copy(inputs)
            return run_model(run, args, kwargs)
    except Exception as error:
        return error


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def in_float64(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy that computes in float64 throughout, casts included."""
    result = copy_graph(graph_module)

    def wide(argument: Any) -> Any:
        return torch.float64 if isinstance(argument, torch.dtype) and argument.is_floating_point else argument

    for node in result.graph.nodes:
        if node.op == "get_attr":
            tensor = get_attribute(result, str(node.target))
            if tensor.is_floating_point():
                set_attribute(result, str(node.target), tensor.detach().double())
        elif node.op == "call_function":
            node.args, node.kwargs = pytree.tree_map(wide, (node.args, node.kwargs))
    result.recompile()
    return result


def _difference(
    expected: list[torch.Tensor], actual: list[torch.Tensor] | Exception, of_model: bool = False
) -> str | None:
    """What sets two lists of outputs apart, beyond rounding; None if nothing does.

    ``of_model``: the expected ones are the model's own, whose kernels may be others (attention without a mask).
    """
    looser = 10 if of_model else 1
    if isinstance(actual, Exception):
        return f"it fails there with {type(actual).__name__}: {actual}"
    if len(expected) != len(actual):
        return f"{len(actual)} tensors in place of {len(expected)}"
    return next(
        (text for i, pair in enumerate(zip(expected, actual, strict=True)) if (text := _apart(i, *pair, looser))), None
    )


def _apart(number: int, expected: torch.Tensor, actual: torch.Tensor, looser: int = 1) -> str | None:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return f"output {number} is {tuple(actual.shape)} {actual.dtype}, not {tuple(expected.shape)} {expected.dtype}"
    if expected.numel() == 0 or expected.is_quantized:
        return None
    if not (expected.is_floating_point() or expected.is_complex()):
        return None if torch.equal(expected, actual) else f"output {number} (integers) differs"
    if expected.is_complex():
        expected, actual = torch.view_as_real(expected), torch.view_as_real(actual)
    dtype = expected.dtype
    a, b = (t.double().reshape(-1, t.shape[-1]) if t.dim() else t.double().reshape(1, 1) for t in (expected, actual))
    odd = ~(torch.isfinite(a) & torch.isfinite(b))
    if bool(odd.any()) and not torch.equal(a[odd].nan_to_num(math.pi), b[odd].nan_to_num(math.pi)):
        return f"output {number} is not finite at other places"
    a, b = a.masked_fill(odd, 0), b.masked_fill(odd, 0)
    scale = a.abs().amax(0)  # per channel
    allowed = looser * (_TOLERANCE.get(dtype, 5e-2) * scale + _ULPS * torch.finfo(dtype).eps * scale.median())
    excess = (a - b).abs().amax(0) - allowed
    if bool((excess <= 0).all()):
        return None
    worst = int(excess.argmax())
    difference = float((a - b).abs()[:, worst].max())
    return f"output {number}, channel {worst}, by {difference:.3g} (it is up to {float(scale[worst]):.3g})"


def _first_difference(reference: fx.GraphModule, graph: fx.GraphModule, inputs: Any) -> str:
    expected, actual = _values(reference, inputs), _values(graph, inputs)
    for node, value in actual.items():
        other = next((v for n, v in expected.items() if n.name == node.name), None)
        if other is not None and other.shape == value.shape and _apart(0, other, value) is not None:
            return f"at {described(node)}"
    return "between values that only one of the graphs has"


def _values(graph_module: fx.GraphModule, inputs: Any) -> dict[fx.Node, torch.Tensor]:
    values: dict[fx.Node, torch.Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                values[n] = result.detach().clone()
            return result

    flat = pytree.tree_leaves(own_copy(inputs))
    try:
        run_model(lambda *args: Recorder(graph_module).run(*args, enable_io_processing=False), flat, {})
    except Exception:  # as far as it came
        return values
    return values
