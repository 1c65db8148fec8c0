"""``python -m benchmarks.step_time``: how much longer a training step takes with masks than without."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from transformers import AutoTokenizer, PreTrainedModel

import bpc
from benchmarks.training import example_inputs, load_classifier
from bpc.cli.training import has_fast_bf16
from bpc.scores import MaskSet
from bpc.train import score_parameters, weight_parameters
from examples.tweets.data import encoder_directory

WARM_UP = 3


def step_of(model: PreTrainedModel, masks: MaskSet | None, batch: int, length: int, bf16: bool) -> Callable[[], None]:
    """One optimizer step on random tokens: forward, backward, AdamW over weights (and scores)."""
    ids = torch.randint(1000, 20000, (batch, length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 3}
    if masks is None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    else:
        groups = [{"params": weight_parameters(model, masks), "lr": 1e-5}, score_parameters(masks, 1e-2)]
        optimizer = torch.optim.AdamW(groups, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**inputs).loss
        if masks is not None:
            loss = loss + masks.regularization()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(
    batch: Annotated[int, typer.Option(help="Texts a step.")] = 64,
    length: Annotated[int, typer.Option(help="Tokens a text.")] = 32,
    rounds: Annotated[int, typer.Option(help="Timed steps of each side; they take turns.")] = 21,
    preset: Annotated[str, typer.Option(help="Pattern.")] = "hybrid",
) -> None:
    """Time dense and masked steps of the tweets encoder in turns and print both medians and the ratio."""
    bf16 = has_fast_bf16()
    dense = load_classifier(encoder_directory(), dropout=0.0).train()
    masked = load_classifier(encoder_directory(), dropout=0.0)
    program = bpc.compile(masked, preset, example_inputs(AutoTokenizer.from_pretrained(encoder_directory())))
    program.set_progress(0.5)
    for model in (dense, masked.train()):
        model.set_attn_implementation("eager")
    steps = [
        step_of(dense, None, batch, length, bf16),
        step_of(masked, program.mask_set, batch, length, bf16),
    ]
    times: list[list[float]] = [[], []]
    for round_ in range(WARM_UP + rounds):
        for step, own in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if round_ >= WARM_UP:
                own.append(time.perf_counter() - start)
    medians = [1e3 * statistics.median(own) for own in times]
    best = [1e3 * min(own) for own in times]
    print(
        f"{batch} x {length} tokens, {'bf16' if bf16 else 'fp32'}, {torch.get_num_threads()} threads: "
        f"dense {medians[0]:.0f} ms, masked {medians[1]:.0f} ms, ratio {medians[1] / medians[0]:.2f} "
        f"(fastest steps {best[0]:.0f} and {best[1]:.0f} ms, ratio {best[1] / best[0]:.2f})"
    )


if __name__ == "__main__":
    typer.run(main)
