"""Room for large tensors is a tensor as any other."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from passes.ir import pages
from passes.ir.pages import unfilled


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 5), (1025, 1024)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float32])
def test_what_is_written_there_is_read_again(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    numbers = (torch.randn(shape) > 0).to(dtype)
    room = unfilled(shape, dtype).copy_(numbers)
    assert torch.equal(room, numbers)
    assert room.dtype is dtype
    assert room.untyped_storage().nbytes() == room.nbytes  # tied weights are saved by who covers the whole of it


def test_tensors_without_memory_are_not_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_C", object())  # has no madvise
    with torch.device("meta"):
        assert unfilled((2048, 2048), torch.float32).is_meta
    with FakeTensorMode():
        assert unfilled((2048, 2048), torch.float32).shape == (2048, 2048)
    if pages._HUGE is not None:
        with pytest.raises(AttributeError):
            unfilled((2048, 2048), torch.float32)
