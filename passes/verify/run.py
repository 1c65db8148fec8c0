"""Running a graph: all at once, or node by node, in its own precision or in another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

aten = torch.ops.aten


_SEED = 0  # of the random numbers that a graph draws itself

# Operators that only move numbers, out of what may be the largest weight of all: they read it as it is.
_LOOKUPS = frozenset(
    {aten.embedding.default, aten.index.Tensor, aten.index_select.default, aten.gather.default, aten.select.int}
)


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        yield


def outputs_of(graph_module: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The output tensors. A graph that draws random numbers (masked auto-encoders) draws the same ones every time."""
    with same_random_numbers(), torch.no_grad():
        return [t for t in pytree.tree_leaves(graph_module(*args, **kwargs)) if isinstance(t, torch.Tensor)]


class Casts:
    """Tensors in another precision, shared by the runs that read them at the same node; `clear` frees them.

    ``given``: pairs (tensor, what stands for it in any other precision).
    """

    def __init__(self, given: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()) -> None:
        self._made: dict[tuple[int, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}
        self._given = {id(tensor): (tensor, other) for tensor, other in given}

    def __call__(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if not tensor.is_floating_point() or tensor.dtype == dtype:
            return tensor
        if id(tensor) in self._given:
            return self._given[id(tensor)][1].to(dtype)
        key = id(tensor), dtype  # the tensor is kept as well, so that its id stays its own
        if key not in self._made:
            self._made[key] = tensor, tensor.to(dtype)
        return self._made[key][1]

    def clear(self) -> None:
        self._made.clear()


class Run(fx.Interpreter):
    """One evaluation of a graph, node by node, so that several runs can go side by side.

    ``dtype`` is the floating dtype everything is computed in: inputs, weights, and what operators are told to compute
    in (a softmax forced to float32). None: as the graph says. Weights are cast where they are read and freed by
    ``casts.clear()``: one at a time exists twice. ``twin`` is the same graph's run in its own precision, one step
    ahead: random numbers come from it, and so do the results of operators that have no kernel for ``dtype``.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        leaves: Sequence[Any],
        dtype: torch.dtype | None = None,
        *,
        twin: Run | None = None,
        casts: Casts | None = None,
    ) -> None:
        super().__init__(graph_module)
        self.dtype, self.twin = dtype, twin
        self.casts = casts or Casts()
        self.args_iter = iter([self._cast(leaf) for leaf in leaves])
        self.outputs: tuple[torch.Tensor, ...] = ()
        self.borrowed = False  # some values are the twin's, for want of a kernel
        self._drew: fx.Node | None = None  # the node that last drew random numbers
        with same_random_numbers():
            self._random = torch.get_rng_state()

    def step(self, node: fx.Node) -> Any:
        """Evaluate the next node. What it reads for the last time stays until `free`."""
        if self.dtype is not None and self.twin is not None and node.op == "call_function":
            value = self._like_twin(node, self.twin.env[node])
        elif _may_draw(node):
            value = self._draw(node)
        else:
            value = self.run_node(node)
        self.env[node] = value
        if node.op == "output":
            leaves = pytree.tree_leaves(value)
            self.outputs = tuple(self._cast(t) for t in leaves if isinstance(t, torch.Tensor))
        return value

    def free(self, node: fx.Node) -> None:
        """Drop the values that no node after ``node`` reads."""
        for unused in self.user_to_last_uses.get(node, ()):
            self.env.pop(unused, None)
        if not node.users:
            self.env.pop(node, None)

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if self.dtype is None or n.op == "output" or n.target in _LOOKUPS:
            return args, kwargs
        return fx.node.map_aggregate(args, self._argument), fx.node.map_aggregate(kwargs, self._argument)

    def _draw(self, node: fx.Node) -> Any:
        with torch.random.fork_rng():
            torch.set_rng_state(self._random)
            value = self.run_node(node)
            after = torch.get_rng_state()
        if not torch.equal(after, self._random):
            self._random, self._drew = after, node
        return value

    def _like_twin(self, node: fx.Node, known: Any) -> Any:
        """The node's value in ``dtype``; ``known``, the twin's, where that is what there is."""
        assert self.twin is not None
        if self.twin._drew is not node:
            with contextlib.suppress(RuntimeError, NotImplementedError, TypeError, ValueError):
                value = self.run_node(node)
                if _shapes(value) == _shapes(known):  # reading the bits of a float as integers changes them
                    return fx.node.map_aggregate(value, self._cast)
            self.borrowed = True
        return fx.node.map_aggregate(known, self._cast)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.dtype) and value.is_floating_point:
            return self.dtype
        if isinstance(value, fx.GraphModule):  # the body of a region (no-grad, autocast)
            return lambda *leaves: run_whole(value, leaves, self.dtype)
        return self._cast(value)

    def _cast(self, value: Any) -> Any:
        if self.dtype is None or not isinstance(value, torch.Tensor):
            return value
        return self.casts(value, self.dtype)


def exact_run(graph_module: fx.GraphModule, leaves: Sequence[Any], casts: Casts | None = None) -> Run:
    """The graph on flat inputs, computed in float64: its ``outputs``, and whether anything was ``borrowed``."""
    own = Run(graph_module, leaves)
    exact = Run(graph_module, leaves, torch.float64, twin=own, casts=casts)
    with torch.no_grad():
        for node in graph_module.graph.nodes:
            for run in (own, exact):
                run.step(node)
            for run in (own, exact):
                run.free(node)
            exact.casts.clear()
    return exact


def run_whole(graph_module: fx.GraphModule, leaves: Sequence[Any], dtype: torch.dtype | None) -> Any:
    """The graph's result on flat inputs, computed in ``dtype``."""
    run = Run(graph_module, leaves, dtype)
    result: Any = None
    for node in graph_module.graph.nodes:
        result = run.step(node)
        run.free(node)
        run.casts.clear()
    return result


def _may_draw(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def _shapes(value: Any) -> list[Any]:
    return [leaf.shape if isinstance(leaf, torch.Tensor) else None for leaf in pytree.tree_leaves(value)]
