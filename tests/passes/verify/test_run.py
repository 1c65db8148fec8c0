"""Runs of a graph: the same random numbers every time, another precision throughout, values freed when last read."""

from __future__ import annotations

import torch

from passes.verify.run import Casts, Run, exact_run, outputs_of, run_whole
from tests.passes.sketch import Sketch, matrix

aten = torch.ops.aten


def test_random_numbers_are_the_same_every_time_and_the_callers_are_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (outputs_of(lambda: torch.rand(3), (), {})[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_an_exact_run_computes_in_float64_what_the_graph_forces_to_float32() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3, dtype=torch.float32)
    product = sketch.call(aten.linear.default, x, sketch.weight("w", matrix(4, 3).float()))
    out = sketch.call(aten.softmax.int, product, -1, torch.float32)
    module, numbers = sketch.done(out), torch.randn(2, 3)
    (exact,) = exact_run(module, [numbers]).outputs
    assert exact.dtype is torch.float64
    weight = module.get_parameter("w").double()
    torch.testing.assert_close(exact, (numbers.double() @ weight.t()).softmax(-1), rtol=0, atol=1e-15)
    assert run_whole(module, [numbers], None)[0].dtype is torch.float32


def test_an_exact_run_draws_what_its_twin_drew() -> None:
    sketch = Sketch()
    x = sketch.input("b", 30, dtype=torch.float32)
    drawn = sketch.call(aten.bernoulli.default, x)
    module, numbers = sketch.done(drawn), torch.full((2, 30), 0.5)
    (exact,) = exact_run(module, [numbers]).outputs
    assert torch.equal(exact.float(), outputs_of(module, (numbers,), {})[0])


def test_values_are_freed_when_they_were_read_for_the_last_time() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    y = sketch.call(aten.relu.default, x)
    module = sketch.done(sketch.call(aten.add.Tensor, y, x))
    run, held = Run(module, [torch.ones(2, 3)]), []
    for node in module.graph.nodes:
        run.step(node)
        run.free(node)
        held.append(sorted(n.name for n in run.env))
    assert held[1] == ["relu_default", "x"]
    assert held[2] == ["add_tensor"]
    assert len(run.outputs) == 1


def test_casts_are_shared_until_they_are_cleared() -> None:
    casts, tensor, index = Casts(), torch.ones(2), torch.ones(2, dtype=torch.int64)
    made = casts(tensor, torch.float64)
    assert casts(tensor, torch.float64) is made
    assert casts(index, torch.float64) is index
    assert casts(tensor, torch.float32) is tensor
    casts.clear()
    assert casts(tensor, torch.float64) is not made
