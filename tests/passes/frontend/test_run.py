"""The user's model and inputs are afterwards as they were, whatever ran and however it ended."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.frontend.run import buffers_kept, in_eval_mode, own_copy, run_model


def test_copies_share_no_memory_and_no_history_and_other_values_stay() -> None:
    x, marker = torch.ones(2, requires_grad=True), object()
    args, kwargs = own_copy(((x, [x * 2], marker), {"size": 3}))
    assert args[2] is marker
    assert kwargs == {"size": 3}
    for copy in (args[0], args[1][0]):
        assert copy.is_leaf
        assert not copy.requires_grad
        copy.zero_()
    assert x.tolist() == [1.0, 1.0]


def test_copies_made_in_inference_mode_can_be_written_outside() -> None:
    with torch.inference_mode():
        copy = own_copy(torch.ones(2))
    assert not copy.is_inference()
    copy.add_(1)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, *, shift: float) -> dict[str, object]:
        return {"sum": x * self.scale + torch.rand_like(x) + shift, "size": len(x), "rest": [x]}


def test_runs_draw_the_same_numbers_and_leave_the_generator_alone() -> None:
    model, x = Noisy(), torch.zeros(3)
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = run_model(model, (x,), {"shift": 1.0})
    assert torch.equal(torch.rand(2), expected)
    second = run_model(model, (x,), {"shift": 1.0})
    assert [tuple(t.shape) for t in first] == [(3,), (3,)]  # tensors only
    assert torch.equal(first[0], second[0])
    assert bool((first[0] >= 1).all())
    assert not first[0].requires_grad


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_fused_encoder_is_off_inside_and_back_afterwards(
    enabled: bool, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run() -> torch.Tensor:
        seen.append(torch.backends.mha.get_fastpath_enabled())
        if fails:
            raise IndexError("in the model")
        return torch.ones(())

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        if fails:
            with pytest.raises(IndexError, match="in the model"):
                run_model(run, (), {})
        else:
            run_model(run, (), {})
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert seen == [False]


def test_every_module_has_its_own_training_flag_back() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout(0.5)))
    model[1].eval()
    model[1][0].train()
    modes = [m.training for m in model.modules()]

    def stop() -> None:
        assert not any(m.training for m in model.modules())
        raise IndexError

    with pytest.raises(IndexError), in_eval_mode(model):
        stop()
    assert [m.training for m in model.modules()] == modes == [True, True, False, True]


def test_buffers_have_their_numbers_back_and_stay_the_same_tensors() -> None:
    norm = nn.BatchNorm1d(2)
    buffer, version = norm.running_mean, norm.num_batches_tracked
    assert buffer is not None
    assert version is not None
    untouched = nn.Module()
    untouched.register_buffer("table", torch.ones(2))
    model = nn.ModuleList([norm, untouched])

    def stop() -> None:
        norm(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        assert buffer.tolist() != [0.0, 0.0]
        raise IndexError

    with pytest.raises(IndexError), buffers_kept(model):
        stop()
    assert norm.running_mean is buffer
    assert buffer.tolist() == [0.0, 0.0]
    assert int(version) == 0
    assert untouched.table._version == 0  # not even written: it may be memory that must not be


def test_buffers_that_take_part_in_training_are_restored_too() -> None:
    model = nn.Module()
    model.register_buffer("state", torch.ones(2, requires_grad=True))
    with buffers_kept(model):
        model.state.data.add_(1)
    assert model.state.tolist() == [1.0, 1.0]
