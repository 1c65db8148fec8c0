"""Verification: graph invariants after every pass, and numerical equivalence of two graphs on fresh inputs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils import _pytree as pytree

from passes.analysis.linear import LinearForm, linear_form
from passes.channels import is_parameter, tensor_of
from passes.graph import get_attribute
from passes.program import trace_info

_SEED = 0  # of the random numbers that a graph draws itself


class GraphInvariantError(RuntimeError):
    """A rewritten graph is not well formed."""


class VerificationError(RuntimeError):
    """Two graphs that should compute the same function differ; the message names the first value that does."""


class NotFiniteError(VerificationError, ValueError):
    """The masked model has infinities or NaN where they forbid a comparison; the message says where."""


@dataclass(frozen=True)
class Agreement:
    """How far two graphs are apart: the largest absolute difference, the outputs' scale, and the shapes tried."""

    max_abs_diff: float
    max_rel_diff: float
    scale: float
    dtype: str
    shapes: tuple[str, ...]
    skipped: tuple[str, ...]  # shapes the reference itself does not accept

    def __str__(self) -> str:
        return f"largest difference {self.max_abs_diff:.2e} ({self.dtype}, {len(self.shapes)} input shapes)"


def check_graph(graph_module: fx.GraphModule) -> None:
    """No dangling names, no parameter without entries, no node reads an erased one."""
    graph_module.graph.lint()
    for node in graph_module.graph.nodes:
        if is_parameter(node):
            try:
                tensor = get_attribute(graph_module, str(node.target))
            except AttributeError:
                raise GraphInvariantError(f"{node.name} reads {node.target}, which does not exist") from None
            if isinstance(tensor, torch.Tensor) and tensor.numel() == 0:
                raise GraphInvariantError(f"{node.target} has no entries: shape {tuple(tensor.shape)}")


# --------------------------------------------------------------------------------------------------- fresh inputs


def fresh_inputs(
    graph_module: fx.GraphModule, seed: int = 0, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """(description, args, kwargs): the example, then random inputs with other batch and sequence sizes.

    Random integers stay in the example's range, 0/1 masks hide a random tail of each row (never all of it; see
    `shown_value`), floats follow the example's mean and spread.
    """
    info = trace_info(graph_module)
    generator = torch.Generator().manual_seed(seed)
    leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    placeholders = [n for n in graph_module.graph.nodes if n.op == "placeholder" and tensor_of(n) is not None]
    yield "example", *pytree.tree_unflatten([_cast(leaf, dtype) for leaf in leaves], spec)
    symbols: dict[sympy.Symbol, int] = {}
    for node, tensor in zip(placeholders, tensors, strict=True):
        fake = tensor_of(node)
        assert fake is not None
        for size, actual in zip(fake.shape, tensor.shape, strict=True):
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                symbols[size.node.expr] = actual
    picks = random.Random(seed)
    for trial in range(3 if symbols else 1):
        # Inputs whose example sizes agree (ids and their mask) keep agreeing.
        other = {n: _other_size(n, trial, picks) for n in sorted(set(symbols.values()))}
        bound = {s: other[n] for s, n in symbols.items()}
        new = iter(
            _random_like(tensor, _shape(node, bound), generator)
            for node, tensor in zip(placeholders, tensors, strict=True)
        )
        filled = [_cast(next(new), dtype) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        sizes = ", ".join("x".join(map(str, t.shape)) for t in filled if isinstance(t, torch.Tensor))
        yield sizes, *pytree.tree_unflatten(filled, spec)


def _other_size(example: int, trial: int, picks: random.Random) -> int:
    """Sizes near the example's; the last trial repeats the example's own sizes with fresh numbers."""
    return example if trial == 2 else max(1, example + picks.choice([-1, 1, 2, 3]) * (1 + trial))


def _shape(node: fx.Node, bound: dict[sympy.Symbol, int]) -> tuple[int, ...]:
    fake = tensor_of(node)
    assert fake is not None
    return tuple(int(s.node.expr.subs(bound)) if isinstance(s, torch.SymInt) else int(s) for s in fake.shape)


def _random_like(example: torch.Tensor, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    if example.dtype is torch.bool or (
        not example.is_floating_point() and bool(((example == 0) | (example == 1)).all())
    ):
        visible = shown_value(example)
        if len(shape) != 2:
            return torch.full(tuple(shape), visible, dtype=example.dtype)
        lengths = torch.randint(1, shape[-1] + 1, (shape[0], 1), generator=generator)
        return ((torch.arange(shape[-1]) < lengths) == visible).to(example.dtype)
    if not example.is_floating_point():
        low, high = int(example.min()), int(example.max())
        return torch.randint(low, high + 1, tuple(shape), generator=generator).to(example.dtype)
    spread = example.float().std() if example.numel() > 1 else torch.tensor(1.0)
    noise = torch.randn(tuple(shape), generator=generator)
    return (noise * spread.nan_to_num(1.0) + example.float().mean()).to(example.dtype)


def shown_value(example: torch.Tensor) -> bool:
    """What a 0/1 mask holds where something is to be seen: 1 in attention masks, 0 in torch's key padding masks.

    Padding is at one end of the rows: at the other all of them agree. A row that sees nothing would promise nothing.
    """
    rows = example.bool().reshape(-1, example.shape[-1] if example.dim() else 1)
    ends = [rows[:, position] for position in (0, -1)] if rows.numel() else []
    return next((bool(end[0]) for end in ends if bool((end == end[0]).all())), True)


def _cast(leaf: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None or not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return leaf
    return leaf.to(dtype)


# ------------------------------------------------------------------------------------------------------ equivalence


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        yield


def outputs_of(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The output tensors. A graph that draws random numbers (masked auto-encoders) draws the same ones every time."""
    with _same_random_numbers(), torch.no_grad():
        return [t for t in pytree.tree_leaves(graph_module(*args, **kwargs)) if isinstance(t, torch.Tensor)]


@dataclass(frozen=True)
class Trial:
    """Inputs and what the reference makes of them."""

    description: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Reference:
    """A graph's outputs on the example and on fresh inputs; the graph itself is no longer needed."""

    trials: tuple[Trial, ...]
    skipped: tuple[str, ...]


def record_reference(graph_module: fx.GraphModule, seed: int = 0) -> Reference:
    """Run a graph on the example and on fresh inputs of several shapes.

    Raises `NotFiniteError` if, on the example, its outputs are not finite or a masked weight meets a value that is not
    (0 · inf is NaN in the reference and absent in the candidate: nothing can be promised, exactness trap 11). Fresh
    inputs it does not accept, or on which it is not finite, are listed as skipped.
    """
    refuse_non_finite(graph_module)
    trials, skipped = [], []
    for description, args, kwargs in fresh_inputs(graph_module, seed):
        try:
            expected = outputs_of(graph_module, args, kwargs)
        except Exception:
            if description == "example":
                raise
            skipped.append(description)
            continue
        if all(bool(torch.isfinite(t).all()) for t in expected if t.is_floating_point()):
            trials.append(Trial(description, args, kwargs, tuple(expected)))
        elif description == "example":
            raise NotFiniteError(
                "the masked model's output is not finite on the example inputs, so nothing can be verified: look for "
                "NaN or infinities in its weights, or give another example"
            )
        else:
            skipped.append(description)
    return Reference(tuple(trials), tuple(skipped))


def compare(
    reference: Reference, candidate: fx.GraphModule, *, tolerance: float, locate: Callable[[Trial], str]
) -> Agreement:
    """Run ``candidate`` on the reference's inputs.

    ``tolerance`` bounds max |reference − candidate| / max(1, max |reference|). Over it, raises `VerificationError` with
    what ``locate`` says about the trial.
    """
    worst_abs = worst_rel = scale = 0.0
    dtype = "float32"
    for trial in reference.trials:
        actual = outputs_of(candidate, trial.args, trial.kwargs)
        for a, b in zip(trial.expected, actual, strict=True):
            if not a.is_floating_point():
                if not torch.equal(a, b):
                    raise VerificationError(f"integer output differs on inputs {trial.description}")
                continue
            if a.shape != b.shape:
                raise VerificationError(
                    f"output {tuple(a.shape)} became {tuple(b.shape)} on inputs {trial.description}"
                )
            if a.numel() == 0:
                continue
            dtype = str(a.dtype).removeprefix("torch.")
            difference = float((a.double() - b.double()).abs().max())
            magnitude = float(a.double().abs().max())
            worst_abs, scale = max(worst_abs, difference), max(scale, magnitude)
            worst_rel = max(worst_rel, difference / max(1.0, magnitude))
            if not difference / max(1.0, magnitude) <= tolerance:
                raise VerificationError(
                    f"the small graph differs from the masked one by {difference:.3e} (outputs up to {magnitude:.3g}) "
                    f"on inputs {trial.description}, tolerance {tolerance:.1e}. {locate(trial)}"
                )
    shapes = tuple(trial.description for trial in reference.trials)
    return Agreement(worst_abs, worst_rel, scale, dtype, shapes, reference.skipped)


def verify_equivalent(
    reference: fx.GraphModule, candidate: fx.GraphModule, *, tolerance: float, seed: int = 0
) -> Agreement:
    """Compare two graphs on the example and on fresh inputs; see `record_reference` and `compare`."""

    def locate(trial: Trial) -> str:
        return first_divergence(reference, candidate, trial.args, trial.kwargs, tolerance)

    return compare(record_reference(reference, seed), candidate, tolerance=tolerance, locate=locate)


def refuse_non_finite(graph_module: fx.GraphModule) -> None:
    """Raise ValueError, naming the value, if on the example inputs a masked (zero) weight meets inf or NaN."""

    class Checker(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            form = linear_form(n)
            if form is not None:
                _check_finite(graph_module, form, self.env[form.input])
            return super().run_node(n)

    info = trace_info(graph_module)
    with _same_random_numbers(), torch.no_grad():
        Checker(graph_module).run(*pytree.tree_leaves((info.args, info.kwargs)), enable_io_processing=False)


def _check_finite(graph_module: fx.GraphModule, form: LinearForm, value: torch.Tensor) -> None:
    if bool(torch.isfinite(value).all()):
        return
    masked = (form.rows(get_attribute(graph_module, form.weight_name)) == 0).any(0)
    channels = ~torch.isfinite(value).flatten(0, -2).all(0) & masked
    if bool(channels.any()):
        which = channels.nonzero().flatten()[:8].tolist()
        raise NotFiniteError(
            f"{form.input.name} is not finite on the example inputs in channels {which}, and {form.weight_name} has "
            "zeros there: 0 · inf is NaN in the masked model and absent in the small one, so they cannot agree. "
            "Keep those weights, or keep the value finite."
        )


def first_divergence(
    reference: fx.GraphModule,
    candidate: fx.GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tolerance: float,
) -> str:
    """Name the first value of equal name and shape in which the two graphs differ."""
    expected = _record(reference, args, kwargs)
    actual = _record(candidate, args, kwargs)
    for name, value in actual.items():
        other = expected.get(name)
        if other is None or other.shape != value.shape or not value.is_floating_point():
            continue
        difference = float((other.double() - value.double()).abs().max()) if value.numel() else 0.0
        if not difference <= tolerance * max(1.0, float(other.double().abs().max())):
            return f"First value that differs: {name} (by {difference:.3e})."
    return "No intermediate value of equal shape differs."


def _record(graph_module: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                values[n.name] = result.detach()
            return result

    flat = pytree.tree_leaves((args, kwargs))
    with _same_random_numbers(), torch.no_grad():
        Recorder(graph_module).run(*flat, enable_io_processing=False)
    return values
