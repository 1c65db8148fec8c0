"""Sessions: threads take turns, torch is as it was, and nothing grows."""

from __future__ import annotations

import gc
import random
import threading

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import graph_module as fx_graph_module

import passes
from passes.ir.info import TraceError


class Meddles(nn.Module):
    """Draws numbers and turns switches, and fails on request."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.linear, self.fails = nn.Linear(4, 4), fails

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        random.random()
        torch.set_default_dtype(torch.float64)
        y = self.linear(x) + 0 * torch.rand(1, dtype=x.dtype)
        return y if not self.fails or x.sum() > 0 else -y


@pytest.mark.parametrize("fails", [False, True])
def test_torch_is_left_as_it_was(fails: bool) -> None:
    model, x = Meddles(fails).train(), torch.randn(3, 4)
    model.linear.weight.requires_grad_(False)
    before = (torch.get_rng_state(), random.getstate(), torch.get_default_dtype(), torch.is_grad_enabled())
    if fails:
        with pytest.raises(TraceError):
            passes.trace(model, x)
    else:
        assert not passes.trace(model, x).get_parameter("linear.weight").requires_grad
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_default_dtype(), torch.is_grad_enabled()) == before[1:]
    assert model.training
    assert model.linear.training
    assert not model.linear.weight.requires_grad
    assert model.linear.bias.requires_grad


def test_threads_trace_and_shrink_at_once() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).train(), torch.randn(3, 4)
    results: list[object] = []

    def work() -> None:
        try:
            results.append(passes.shrink(passes.trace(model, x)).graph_module(x))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.training
    for result in results:
        assert isinstance(result, torch.Tensor), result
        torch.testing.assert_close(result, model(x))


def test_traces_leave_nothing_behind() -> None:
    def once() -> None:
        passes.shrink(passes.trace(nn.Linear(4, 4), torch.randn(3, 4)), verify=False)

    def held() -> tuple[int, ...]:
        gc.collect()
        kinds = (fx.Node,)
        alive = [sum(isinstance(o, kind) for o in gc.get_objects()) for kind in kinds]
        return (*alive, len(fx_graph_module._loader.eval_cache), len(FakeTensorMode.cache))

    counts = []
    for _ in range(5):
        once()
        counts.append(held())
    for kept in zip(*counts, strict=True):  # caches fill in the first rounds; what grows in every round leaks
        assert kept[-1] <= max(kept[1:-1]), counts
