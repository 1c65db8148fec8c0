"""Ways to train that block masks do not survive, and masked models that nobody prunes: refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers.hyperparameter_search import default_hp_search_backend
from transformers.trainer_utils import HPSearchBackend

from bpc.scores.attach import is_masked
from bpc.wrapped import is_sharded


def refuse_masks_without_program(model: nn.Module | None) -> None:
    """Raise ValueError for a masked model that is trained as a plain one: nothing would move its threshold."""
    if model is not None and any(is_masked(module) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has block masks, which only move with their program: give the Trainer program= "
            "(what bpc.compile returned) in place of model=; program.detach() makes it a plain model again"
        )


def refuse_sharded(module: nn.Module) -> None:
    """Raise ValueError for a program whose module ``fully_shard`` has cut into pieces: it would have to be whole."""
    if is_sharded(module):
        raise ValueError(
            f"the parameters of this {type(module).__name__} are cut into pieces already (fully_shard): give the "
            "Trainer a program with a whole module, and TrainingArguments(fsdp=True) does it"
        )


def refuse_wrappers(trainer: Any) -> None:
    """Raise ValueError where a trainer would put other tensors or copies in the place of masked parameters."""
    if trainer.is_fsdp_enabled:
        plugin = trainer.accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise ValueError(_how_else("FSDP 1 makes one flat tensor of parameters, in front of which no mask fits"))
        if plugin.cpu_ram_efficient_loading:
            raise ValueError(
                "with fsdp_cpu_ram_efficient_loading only the first rank reads the model, and the others have none to "
                "prune: set it to false (fsdp_config, or --fsdp_cpu_ram_efficient_loading false for accelerate launch)"
            )
    elif trainer.args.fsdp:
        raise ValueError(_how_else("FSDP of XLA shards parameters in a way of its own"))
    if trainer.is_deepspeed_enabled:
        raise ValueError(_how_else("DeepSpeed steps its optimizer inside each backward"))
    if trainer.args.n_gpu > 1:
        raise ValueError(_how_else("nn.DataParallel copies modules, whose masks stay behind"))


def refuse_directions(search: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Raise ValueError for a call of ``search`` with several directions under a backend other than Optuna.

    transformers would run all trials, and then fail to say which is best.
    """
    given = inspect.signature(search).bind(*args, **kwargs).arguments
    if not isinstance(given.get("direction"), list | tuple):
        return
    backend = HPSearchBackend(given.get("backend") or default_hp_search_backend())
    if backend is not HPSearchBackend.OPTUNA:
        raise ValueError(
            f"direction={given['direction']}: a search by {backend.value} has one objective. Give one direction, or "
            'backend="optuna", which finds the Pareto front of several'
        )


def _how_else(reason: str) -> str:
    return (
        f"{reason}: a program cannot be trained like that. Use DistributedDataParallel or FSDP2 (torchrun "
        "--nproc-per-node=N script.py, TrainingArguments(fsdp=True)), or one GPU (CUDA_VISIBLE_DEVICES=0)"
    )
