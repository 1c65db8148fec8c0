"""Ways to train that block masks do not survive, and masked models that nobody prunes: refused by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from bpc.scores.attach import is_masked


def refuse_masks_without_program(model: nn.Module | None) -> None:
    """Raise ValueError for a masked model that is trained as a plain one: nothing would move its threshold."""
    if model is not None and any(is_masked(module) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has block masks, which only move with their program: give the Trainer program= "
            "(what bpc.compile returned) in place of model=; program.detach() makes it a plain model again"
        )


def refuse_wrappers(trainer: Any) -> None:
    """Raise ValueError where a trainer would put other tensors or copies in the place of masked parameters."""
    what = None
    if trainer.is_fsdp_enabled or trainer.is_fsdp_xla_enabled:
        what = "FSDP shards parameters, and masks read whole ones"
    elif trainer.is_deepspeed_enabled:
        what = "DeepSpeed steps its optimizer inside each backward"
    elif trainer.args.n_gpu > 1:
        what = "nn.DataParallel copies modules, whose masks stay behind"
    if what is not None:
        raise ValueError(
            f"{what}: a program cannot be trained like that. Use DistributedDataParallel (torchrun --nproc-per-node=N "
            "script.py), or one GPU (CUDA_VISIBLE_DEVICES=0)"
        )
