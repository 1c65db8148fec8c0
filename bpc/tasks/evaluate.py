"""How well a model does a task: any callable that gives outputs for a batch, masked, small, or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bpc.tasks.score import Score, scored
from bpc.tasks.task import Task, TaskError

if TYPE_CHECKING:
    from datasets import Dataset

Run = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
LABELS = ("labels", "start_positions", "end_positions")


def evaluate(task: Task, run: Run, rows: Dataset, batch_size: int = 32, model: Any = None) -> list[Score]:
    """The task's metrics over ``rows``; ``model`` where the collator needs it (seq2seq).

    Batches are of rows of one length, as far as there are any: padding is work, too.
    """
    encoded, collate = task.encode(rows), task.collator(model)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"])) if task.tokenizer else None
    places = np.arange(len(encoded)) if order is None else np.array(order)
    reduced = []
    for start in range(0, len(encoded), batch_size):
        batch = dict(collate([encoded[int(i)] for i in places[start : start + batch_size]]))
        inputs = {name: value for name, value in batch.items() if name not in LABELS}
        with torch.no_grad():
            outputs = {name: value.cpu() for name, value in run(inputs).items() if isinstance(value, Tensor)}
        reduced.append(np.asarray(task.reduce(outputs, {name: value.cpu() for name, value in batch.items()})))
    found = np.concatenate(reduced)[np.argsort(places)]
    contributions = task.contributions(found, rows, encoded)
    return [scored(metric, contributions) for metric in task.metrics]


def trivial(task: Task, train: Dataset, held_out: Dataset) -> list[Score]:
    """The same metrics of an answer that does not look at the inputs; empty where a task has none."""
    found = task.trivial(train, held_out)
    return [] if found is None else [scored(metric, found) for metric in task.metrics]


def by_module(module: nn.Module) -> Run:
    """A module of transformers, on its own device and in eval mode while it runs."""
    parameter = next(module.parameters())

    def run(inputs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        training = module.training
        module.eval()
        try:
            outputs: Mapping[str, Tensor] = module(**{n: v.to(parameter.device) for n, v in inputs.items()})
        finally:
            module.train(training)
        return outputs

    return run


def by_session(session: Any) -> Run:
    """A file on ONNX Runtime, which takes those of a batch's tensors that it has inputs for, as (rows, …) arrays."""
    wanted = [value.name for value in session.get_inputs()]
    names = [value.name for value in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        if missing := [name for name in wanted if name not in inputs]:
            raise TaskError(f"the file takes {missing[0]}, which the task's data do not give ({', '.join(inputs)})")
        found = session.run(names, {name: inputs[name].numpy() for name in wanted})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run
