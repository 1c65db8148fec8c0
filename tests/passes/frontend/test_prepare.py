"""An exported program becomes a plain graph: regions inlined, noise gone, parameters the model's own, in steps."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from passes.frontend import prepare as module_under_test
from passes.frontend.prepare import STEPS, as_graph, prepare
from passes.ir.graph import ASSERTS, get_attribute
from passes.ir.info import TraceError
from tests.passes.sketch import Sketch

aten = torch.ops.aten
Forward = Callable[[torch.Tensor], torch.Tensor]


class Model(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.run = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


def exported(model: nn.Module, *inputs: torch.Tensor) -> torch.export.ExportedProgram:
    """As a trace exports: in grad mode a region without gradients is one of its own."""
    return torch.export.export(model.eval(), inputs or (torch.randn(2, 3),), strict=False)


def targets(graph: fx.GraphModule) -> list[object]:
    return [n.target for n in graph.graph.nodes if n.op == "call_function"]


def regions(graph: fx.GraphModule) -> list[object]:
    return [t for t in targets(graph) if isinstance(t, torch._ops.HigherOrderOperator)]


def without_gradients(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y, z = x * 2, x + 1
    return y - z


def nested(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x * 2
        with torch.autocast("cpu", enabled=False):
            z = y @ y.t()
            with torch.enable_grad():
                z = z.relu()
        w = z + y.sum()
    return w * 3


def of_a_constant(x: torch.Tensor) -> torch.Tensor:
    table = torch.arange(3.0)
    with torch.no_grad():
        y = x * table + torch.tensor([4.0, 5.0, 6.0])
    return y.relu()


@pytest.mark.parametrize("forward", [without_gradients, nested, of_a_constant])
def test_regions_become_their_operators(forward: Forward) -> None:
    model, x = Model(forward), torch.randn(2, 3)
    program = exported(model)
    assert regions(program.graph_module)  # or this proves nothing
    graph = as_graph(program, model)
    assert not regions(graph)
    assert not dict(graph.named_children())
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)


def test_regions_that_change_numbers_or_that_nobody_knows_are_refused() -> None:
    def autocast(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x.t()

    def branches(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))

    for forward, message in (
        (autocast, r"enabled torch\.autocast region.*call the model in it"),
        (branches, r"higher-order operator cond \(\w+\) cannot be inlined"),
    ):
        model = Model(forward)
        with pytest.raises(TraceError, match=message):
            as_graph(exported(model), model)


def noisy(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.dropout(x, 0.5, False).detach() * 2


def test_noise_is_gone_and_what_is_read_of_it_stays() -> None:
    model, x = Model(noisy), torch.randn(2, 3)
    program = exported(model)
    found = prepare(program, model)
    assert {aten.dropout.default, aten.detach.default} < set(targets(as_graph(program, model)))
    assert targets(found) == [aten.mul.Tensor]
    assert "dropout" not in found.code
    torch.testing.assert_close(found(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "target", ["detach_", "requires_grad_", "detach", "alias", "lift_fresh_copy", "contiguous", "clone"]
)
def test_what_only_renames_its_input_is_noise_and_a_copy_is_none(target: str) -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    same = sketch.call(getattr(aten, target).default, x)
    sketch.call(aten.neg.default, same)  # nobody reads it
    graph = sketch.done(sketch.call(aten.relu.default, same))
    dict(STEPS)["drop-noise"](graph)
    assert targets(graph) == ([aten.clone.default] if target == "clone" else []) + [aten.relu.default]


def test_asserts_and_guards_and_unread_values_are_erased() -> None:
    def checked(x: torch.Tensor) -> torch.Tensor:
        torch._assert_async((x == x).all(), "a number")
        x.relu()
        return x + 1

    model = Model(checked)
    program = torch.export.export(model, (torch.randn(2, 3),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    assert ASSERTS & set(targets(program.graph_module))
    found = prepare(program, model)
    assert targets(found) == [aten.add.Tensor]
    assert not [n for n in found.graph.nodes if n.op == "call_module"]


def test_dropout_in_training_mode_is_no_noise() -> None:
    model = Model(lambda x: nn.functional.dropout(x, 0.5, True))
    assert aten.dropout.default in targets(prepare(exported(model), model))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scale", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)  # a new program is made for it, with parameters of its own
        return self.second(self.first(x)) * self.scale


def test_parameters_and_buffers_are_the_models_own_objects() -> None:
    model = Tied()
    found = prepare(exported(model), model)
    names = {str(n.target) for n in found.graph.nodes if n.op == "get_attr"}
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    assert {"first.bias", "second.bias", "scale"} < names <= own.keys()
    for name in names:
        assert get_attribute(found, name) is own[name]


def test_parameters_are_the_sources_under_every_name_it_has_for_them() -> None:
    source, other = nn.Module(), Tied()
    source.second, source.first = nn.Linear(3, 3), nn.Linear(3, 3)  # second first: the tied weight has its name
    source.first.weight = source.second.weight
    source.later, source.scale = (nn.Buffer(torch.full((3,), 2.0)),) * 2
    graph = as_graph(exported(other), source)
    for name in ("first.weight", "first.bias", "scale"):
        assert get_attribute(graph, name) is get_attribute(source, name)


def test_every_step_is_shown_in_order_with_the_graph_that_it_left() -> None:
    model, x = Model(lambda x: nn.functional.dropout(x * 2, 0.5, False).relu_()), torch.randn(2, 3)
    seen: dict[str, list[object]] = {}

    def look(name: str, graph: fx.GraphModule) -> None:
        graph.recompile()
        torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)
        seen[name] = targets(graph)

    found = prepare(exported(model), model, after=look)
    assert list(seen) == ["torch's functionalisation", *(name for name, _ in STEPS)]
    relu, relu_ = aten.relu.default, aten.relu_.default
    assert [relu_ in seen[name] for name in seen] == [True, False, False, False]
    assert [aten.dropout.default in seen[name] for name in seen][1:] == [False] * 3
    assert targets(found) == seen["canonicalise"] == [aten.mul.Tensor, relu]
    torch.testing.assert_close(found(x), model(x), rtol=0, atol=0)  # its code is the last step's


@pytest.mark.parametrize("step", [name for name, _ in STEPS])
def test_a_step_that_fails_is_named(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: fx.GraphModule) -> None:
        raise KeyError("lost")

    model = Model(lambda x: x * 2)
    steps = tuple((name, fail if name == step else run) for name, run in STEPS)
    monkeypatch.setattr(module_under_test, "STEPS", steps)
    with pytest.raises(TraceError, match=re.escape(f"step {step}: KeyError: 'lost'")):
        prepare(exported(model), model)


def test_a_step_that_leaves_a_broken_graph_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(graph: fx.GraphModule) -> None:
        first, second = (n for n in graph.graph.nodes if n.op == "call_function")
        second.append(first)

    model = Model(lambda x: (x * 2).relu())
    monkeypatch.setattr(module_under_test, "STEPS", (("swap", swap),))
    with pytest.raises(RuntimeError, match=r"topological|used before"):
        prepare(exported(model), model)
