"""The processes (ranks) of one run, as torchrun and ``accelerate launch`` start them: the first writes and prints.

Both launchers describe a process to itself by ``RANK`` and ``WORLD_SIZE`` in its environment. Without them there is one
process, which is the first, and nothing here waits for anybody.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# The others wait while the first asks a teacher or times a model; a launcher ends them should it die meanwhile.
PATIENCE = timedelta(days=1)


class FirstFailed(Exception):
    """The first rank has failed, and has said why: the others end without a word."""


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process writes, prints and measures."""
    return rank() == 0


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Inside, the ranks can talk to each other (gloo between CPUs, NCCL between GPUs of NVIDIA)."""
    if count() == 1:
        yield
        return
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # every rank reads the whole model, to find what can go
    PartialState(cpu=cpu, timeout=PATIENCE)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def from_first(value: T) -> T:
    """What the first rank gives, on all of them; every rank has to call it."""
    if count() == 1:
        return value
    import torch

    held = [value]
    torch.distributed.broadcast_object_list(held, src=0)
    return held[0]


@contextlib.contextmanager
def ahead() -> Iterator[None]:
    """The first rank goes through the block before the others: they find what it has written.

    Raises `FirstFailed` on the others where the first left it by an error.
    """
    if not is_first() and from_first(False):
        raise FirstFailed
    try:
        yield
    except BaseException:
        if is_first():
            from_first(True)
        raise
    if is_first():
        from_first(False)


def average(tensors: Sequence[Tensor]) -> None:
    """Put the mean over the ranks into every tensor, in place; of one dtype and device, alike on all ranks."""
    import torch

    if not tensors or not torch.distributed.is_initialized():
        return
    together = torch.cat([tensor.detach().flatten() for tensor in tensors])
    torch.distributed.all_reduce(together)
    together /= torch.distributed.get_world_size()
    for tensor, mean in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.detach().copy_(mean.view(tensor.shape))
