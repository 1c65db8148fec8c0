"""What one masked training step costs: measured, and counted where nothing that large can be run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

import bpc
from benchmarks.scaling.clock import Clock
from benchmarks.scaling.models import Shape, sizes
from bpc.train import distillation_loss, score_parameters, weight_parameters

LENGTH = 64  # tokens of a text that is trained on
LONG = 2048  # of one that is counted
WARM_UP = 2
TEMPERATURE = 2.0


def masked_program(shape: Shape) -> Any:
    """A program under the preset "hybrid", half-way through its schedule, in training mode without dropout."""
    program = bpc.compile(shape.build(), "hybrid", shape.example(device=torch.get_default_device().type))
    program.module.train()
    for module in program.module.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    program.set_progress(0.5)
    return program


def loss_of(model: Callable[..., Any], program: Any, inputs: dict[str, Any], taught: Tensor) -> Tensor:
    """Distillation of stored logits, and λ."""
    return distillation_loss(model(**inputs).logits, taught, TEMPERATURE) + program.regularization()


def step_case(shape: Shape, texts: int, repeats: int) -> dict[str, Any]:
    """Forward, backward and AdamW over weights and scores, on ``texts`` texts of 64 tokens."""
    clock = Clock()
    torch.manual_seed(0)
    program = masked_program(shape)
    model = program.module
    inputs = shape.example(texts, LENGTH)
    with torch.no_grad():
        taught = model(**inputs).logits.clone()
    groups = [
        {"params": weight_parameters(model, program.mask_set), "lr": 1e-5},
        score_parameters(program.mask_set, 1e-2),
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    for turn in range(WARM_UP + repeats):
        with clock.stage("warm-up" if turn < WARM_UP else "step"):
            loss_of(model, program, inputs, taught).backward()
            optimizer.step()
            optimizer.zero_grad()
    return {
        **sizes(model),
        "scores": sum(score.numel() for score in program.score_parameters()),
        "masked": sum(plan.shape[0] * plan.shape[1] for plan in program.plans),
        "tokens": texts * LENGTH,
        **count_step(shape, texts, LENGTH),
        "stages": clock.figures(),
    }


def count_case(shape: Shape, texts: int) -> dict[str, Any]:
    """A step on texts of 2,048 tokens, counted: weights in bfloat16, and in float32 under autocast to bfloat16."""
    with torch.device("meta"):
        program = masked_program(shape)
    held, mixed = (
        count_step(shape, texts, LONG, torch.bfloat16),
        count_step(shape, texts, LONG, torch.float32, autocast=True),
    )
    return {
        **sizes(program.module),
        "scores": sum(score.numel() for score in program.score_parameters()),
        "masked": sum(plan.shape[0] * plan.shape[1] for plan in program.plans),
        "tokens": texts * LONG,
        "flops": held["flops"],
        "saved bytes": held["saved bytes"],
        "saved bytes under autocast": mixed["saved bytes"],
        "stages": {},
    }


def count_step(
    shape: Shape, texts: int, length: int, dtype: torch.dtype = torch.float32, autocast: bool = False
) -> dict[str, int]:
    """FLOPs and saved bytes of a forward and a backward, on tensors without numbers.

    Saved: what autograd keeps from the forward for the backward, parameters themselves left out, each storage once;
    attention by the fused kernel, which keeps no scores of pairs. FLOPs: of matrix products, attention's included.
    """
    with torch.device("meta"):
        program = masked_program(shape)
        program.module.to("meta", dtype)
    masks = program.mask_set.modules_by_parameter().values()
    with FakeTensorMode():
        parameters = _without_numbers([*program.module.modules(), *masks])
        ids = torch.zeros(texts, length, dtype=torch.long)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

        def run() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = program.module(**inputs).logits
            return distillation_loss(logits, torch.zeros_like(logits), TEMPERATURE)

        saved: dict[Any, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in parameters:
                saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = run()
        bytes_ = sum(saved.values())
        del loss
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run().backward()
    return {"flops": counter.get_total_flops(), "saved bytes": bytes_}


def _without_numbers(modules: Sequence[nn.Module]) -> set[Any]:
    """Put tensors of the fake mode that is entered into the place of all; returns the parameters' storages."""
    made: dict[int, Tensor] = {}
    for module in modules:
        for name, value in module._parameters.items():
            if value is not None:
                fresh = made.setdefault(id(value), nn.Parameter(torch.zeros(value.shape, dtype=value.dtype)))
                module._parameters[name] = fresh
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.zeros(value.shape, dtype=value.dtype)
    return {_storage(value) for value in made.values()}


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()._cdata


def ranks_case(shape: Shape, texts: int, repeats: int) -> dict[str, Any]:
    """The same step in every rank of `torchrun`, gradients averaged by DistributedDataParallel over gloo.

    Bytes are counted by a communication hook, which sees every bucket. The first rank's figures are returned.
    """
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    program = masked_program(shape)
    sent = [0, 0]

    def counted(state, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations that are strings
        sent[0] += bucket.buffer().nbytes
        sent[1] += 1
        return allreduce_hook(None, bucket)

    model = DistributedDataParallel(program.module)
    model.register_comm_hook(None, counted)
    inputs = shape.example(texts, LENGTH)
    with torch.no_grad():
        taught = program.module(**inputs).logits.clone()
    optimizer = torch.optim.AdamW(
        [
            {"params": weight_parameters(program.module, program.mask_set), "lr": 1e-5},
            score_parameters(program.mask_set, 1e-2),
        ],
        fused=True,
    )
    clock = Clock()
    for turn in range(WARM_UP + repeats):
        sent[:] = [0, 0]
        with clock.stage("warm-up" if turn < WARM_UP else "step"):
            loss_of(model, program, inputs, taught).backward()
            optimizer.step()
            optimizer.zero_grad()
    buffers = sum(buffer.nbytes for buffer in program.module.buffers())
    torch.distributed.destroy_process_group()
    return {
        **sizes(program.module),
        "ranks": int(os.environ["WORLD_SIZE"]),
        "scores": sum(score.numel() for score in program.score_parameters()),
        "tokens": texts * LENGTH,
        "gradient bytes": sent[0],
        "buckets": sent[1],
        "buffer bytes": buffers,
        "stages": clock.figures(),
    }
