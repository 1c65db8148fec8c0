"""One of two processes that train in pieces (FSDP2); `test_sharded` starts both: ``python … OUT``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from transformers import TrainingArguments

import bpc
from bpc.train import gather, replica
from tests.bpc.train.test_proportion import SPEC, classifier, language_model, rows, unnamed_language_model

MOVING = {**SPEC, "threshold": {"initial": 0.1, "final": 0.45}}
STEPS, RATE, SCORE_RATE, STEADY_RATE = 6, 1e-3, 0.1, 0.038
PIECES = {"fsdp": True, "fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}
SETTINGS: dict[str, Any] = {
    "learning_rate": RATE,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "max_steps": STEPS,
    "train_sampling_strategy": "sequential",
}


CASES: dict[str, tuple[Callable[[int], nn.Module], str, dict[str, Any], Any]] = {
    "classifier": (classifier, "classifier", {"gradient_accumulation_steps": 2}, None),
    "llama": (language_model, "language_model", {}, None),
    "tied": (unnamed_language_model, "language_model", {}, None),
    "target": (classifier, "classifier", {}, bpc.Target(density=0.5)),
}


def trainer(case: str, out: Path, ranks: int, **more: Any) -> bpc.Trainer:
    """Of four rows a step, whatever the number of ranks."""
    make, data, settings, target = CASES[case]
    share = 4 // ranks // settings.get("gradient_accumulation_steps", 1)
    arguments = TrainingArguments(
        str(out), per_device_train_batch_size=share, **{"save_strategy": "no", **SETTINGS, **settings, **more}
    )
    program = bpc.compile(make(0), MOVING, target=target)
    if target is not None:  # as if every rank had timed the model for itself
        budget = program.mask_set.budget
        assert budget is not None
        budget.prices *= 1.0 + 0.3 * int(os.environ.get("RANK", "0"))
    return bpc.Trainer(
        program=program, args=arguments, train_dataset=rows(data), teacher=make(1), score_learning_rate=SCORE_RATE
    )


def state(trained: bpc.Trainer) -> dict[str, Any]:
    program = trained.program
    assert program is not None
    norms = [entry["grad_norm"] for entry in trained.state.log_history if "grad_norm" in entry]
    return {"state": program.module.state_dict(), "masks": program.masks(), "norms": norms}


def by_hand(module: nn.Module, program: bpc.Program, shard: bool) -> None:
    """A loop of one's own over the whole batch, or this rank's half of it."""
    data, rank = rows("classifier"), int(os.environ.get("RANK", "0"))
    mine = data[rank::2] if shard else data
    inputs = torch.tensor([row["input_ids"] for row in mine])
    labels = torch.tensor([row["labels"] for row in mine])
    scores = program.score_parameters()
    if shard:
        for layer in module.get_submodule("bert.encoder.layer").children():
            fully_shard(layer)
        fully_shard(module)
    known = {id(score) for score in scores}
    weights = [p for p in module.parameters() if id(p) not in known]
    optimizer = torch.optim.AdamW([{"params": weights, "lr": RATE}, {"params": scores, "lr": STEADY_RATE}])
    module.train()
    for step in range(STEPS):
        program.set_progress(step / STEPS)
        for half in (slice(None, None, 2), slice(1, None, 2)):  # gradients add up
            loss = module(input_ids=inputs[half], labels=labels[half]).loss / 2
            loss.backward()
        program.regularization().backward()
        optimizer.step()
        optimizer.zero_grad()
    program.set_progress(1.0)


def refusals(out: Path) -> list[str]:
    """What is said where masks would read pieces, or scores stand still."""
    said = []

    def refused(kind: type[Exception], act: Callable[[], object]) -> None:
        with pytest.raises(kind) as error:
            act()
        said.append(str(error.value).replace("\n", " "))

    def program() -> bpc.Program:
        return bpc.compile(classifier(0), MOVING)

    cut = program()
    fully_shard(cut.module)
    refused(RuntimeError, cut.shrink)
    refused(ValueError, lambda: bpc.Trainer(program=cut, args=TrainingArguments(str(out), **SETTINGS)))
    whole = classifier(0)
    fully_shard(whole)
    refused(ValueError, lambda: bpc.compile(whole, MOVING))
    split = program()
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    parallelize_module(split.module, mesh, {"bert.encoder.layer.0.intermediate.dense": ColwiseParallel()})
    refused(RuntimeError, lambda: split.module(input_ids=torch.ones(2, 4, dtype=torch.long)))
    alone = TrainingArguments(str(out), **SETTINGS, fsdp=True, fsdp_config={"cpu_ram_efficient_loading": True})
    refused(ValueError, lambda: bpc.Trainer(program=program(), args=alone))
    return said


def main(out: Path) -> None:
    rank = os.environ["RANK"]
    for case in CASES:
        found = trainer(case, out / case, 2, **PIECES)
        found.train()
        torch.save(state(found), out / f"{case}-{rank}.pt")
    for name, more in {
        "stopped": {"save_strategy": "steps", "save_steps": 3},
        "half": {"bf16": True, "fsdp_config": {**PIECES["fsdp_config"], "activation_checkpointing": True}},
    }.items():
        found = trainer("classifier", out / name, 2, **{**PIECES, **more})
        found.train()
        torch.save(state(found), out / f"{name}-{rank}.pt")
    found = trainer("classifier", out / "stopped", 2, **PIECES)
    found.train(resume_from_checkpoint=str(out / "stopped" / "checkpoint-3"))
    torch.save(state(found), out / f"resumed-{rank}.pt")
    program = bpc.compile(classifier(0), MOVING)
    module = replica(program.module, program.mask_set)
    by_hand(module, program, shard=True)
    gather(program.module, module)
    torch.save({"state": program.module.state_dict(), "masks": program.masks()}, out / f"hand-{rank}.pt")
    lost, fresh = bpc.compile(classifier(0), MOVING), bpc.compile(classifier(1), MOVING)
    by_hand(lost.module, lost, shard=True)
    gather(fresh.module, lost.module)
    torch.save({"state": fresh.module.state_dict(), "masks": fresh.masks()}, out / f"rescued-{rank}.pt")
    (out / f"refusals-{rank}.txt").write_text("\n".join(refusals(out / "refused")))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
