"""Latency of ONNX files and arithmetic of modules, at one batch size and length."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

ROUNDS = 41
THREADS = 2


def latencies(files: Sequence[Path], batch: int, length: int) -> tuple[float, ...]:
    """Median seconds of one run of each file on ONNX Runtime's CPU provider, the files taking turns.

    Thread pools do not spin: with several sessions in one process they would measure each other.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = [onnxruntime.InferenceSession(str(f), options, providers=["CPUExecutionProvider"]) for f in files]
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, length), dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    times: list[list[float]] = [[] for _ in files]
    for round_ in range(ROUNDS + 3):
        for session, own in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            if round_ >= 3:  # warm-up
                own.append(time.perf_counter() - start)
    return tuple(statistics.median(own) for own in times)


def count_flops(model: nn.Module, batch: int, length: int) -> int:
    """Floating-point operations of matrix products (linears and attention) in one forward."""
    ids = torch.ones(batch, length, dtype=torch.long)
    previous = model.config._attn_implementation if isinstance(model, PreTrainedModel) else None
    if isinstance(model, PreTrainedModel):
        model.set_attn_implementation("eager")  # plain products, which the counter knows
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        if isinstance(model, PreTrainedModel) and previous is not None:
            model.set_attn_implementation(previous)
    return int(counter.get_total_flops())
