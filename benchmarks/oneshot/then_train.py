"""SST-2: pruning without training and one epoch after it, against one epoch (and more) of movement pruning.

    python benchmarks/oneshot/then_train.py --data DIR --model DIR [--out results/oneshot]

Model and sentences are those of sst2.py. Both distil the dense model's logits on the same training sentences, with the
embeddings frozen. One-shot goes to a density and trains what is left; movement pruning (preset "struct": heads and
dims) starts from the dense model and goes where λ takes it, so that it is a curve over λ. Its small model may keep
training for one more epoch ("then 1"), which makes its time at least one-shot's. Learning rates are chosen for each on
the validation set, with the first seed; dev is read for the table.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sst2 import LENGTH, SEEDS, Task
from torch import nn
from transformers import AutoModelForSequenceClassification

import bpc
from benchmarks.training import Phase, encode, logits, train, with_teacher
from bpc.cli.training import has_fast_bf16
from bpc.oneshot import Target
from bpc.oneshot.sublayers import find_sublayers
from examples.tweets.data import Tweet
from passes.structure.roles import find_roles
from results import Results

DENSITIES, LAMBDAS, RATES, BATCH = (1 / 2, 1 / 3), (5.0, 20.0, 80.0), (5e-5, 2e-4), 32
COMMAND = "python benchmarks/oneshot/then_train.py --data DIR --model DIR"
Row = dict[str, Any]


class Runs:
    """Both ways of pruning one model on one set of sentences."""

    def __init__(self, task: Task, directory: Path, state: Path) -> None:
        self.task, self.directory, self.state = task, directory, state
        self.data = encode([Tweet(text, label) for label, text in task.train], task.tokenizer)
        self.data = with_teacher(self.data, logits(task.model, self.data, task.tokenizer))
        dims = {name: p.numel() for name, p in task.model.named_parameters()}
        graph = bpc.compile(self._dense(), "struct", self._example()).plain_graph()
        self.prunable = [w for s in find_sublayers(graph, find_roles(graph)) for w in s.parts]
        self.whole = sum(dims[name] for name in self.prunable)

    def one_shot(self, density: float, seed: int, rate: float) -> dict[str, Row]:
        started = time.perf_counter()
        dense = bpc.prune_once(
            self.task.model,
            self.task.sentences(seed),
            Target(density=density),
            tokenizer=self.task.tokenizer,
            max_length=LENGTH,
        )
        pruned = time.perf_counter() - started
        row = {"before training": self.task.accuracy(dense.module), "pruning s": pruned}
        return {f"one-shot to {density:.0%}, then 1 epoch": row | self._trained(dense.module, seed, rate)}

    def movement(self, final_lambda: float, seed: int, rate: float) -> dict[str, Row]:
        """One run gives two rows: the small model as it is, and after one more epoch."""
        model = self._dense()
        model.set_attn_implementation("eager")
        spec = {"preset": "struct", "regularization": {"final_lambda": final_lambda}}
        program = bpc.compile(model, spec, self._example())
        started = time.perf_counter()
        self._epoch(model, seed, rate, program=program)
        dense = program.shrink()
        row = {"pruning s": time.perf_counter() - started, "before training": self.task.accuracy(dense.module)}
        name = f"movement, λ {final_lambda:g}"
        alone = self._sizes(dense.module) | {"after": row["before training"], "training s": 0.0}
        return {name: row | alone, f"{name}, then 1 epoch": row | self._trained(dense.module, seed, rate)}

    def _trained(self, module: Any, seed: int, rate: float) -> Row:
        started = time.perf_counter()
        module.requires_grad_(True)
        self._epoch(module, seed, rate, model=module)
        seconds = time.perf_counter() - started
        return {"after": self.task.accuracy(module.eval()), "training s": seconds, **self._sizes(module)}

    def _sizes(self, module: nn.Module) -> Row:
        left = {name: p.numel() for name, p in module.named_parameters()}
        return {"density": sum(left.get(name, 0) for name in self.prunable) / self.whole}

    def _epoch(self, trained: Any, seed: int, rate: float, **options: Any) -> None:
        trained.get_input_embeddings().requires_grad_(False)
        folder = self.state / "then-train"
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(seed)
        train(Phase("training", folder, 1, rate, BATCH, seed), self.data, self.task.tokenizer, **options)
        shutil.rmtree(folder, ignore_errors=True)

    def _dense(self) -> Any:
        model = AutoModelForSequenceClassification.from_pretrained(
            self.directory, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        return model.eval()

    def _example(self) -> dict[str, torch.Tensor]:
        found = self.task.tokenizer(["a film", "a good film"], padding=True, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}


def best_rate(rows: dict[float, Row]) -> float:
    """By the validation set."""
    return max(rows, key=lambda rate: rows[rate]["after"]["validation"]["accuracy"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/oneshot"))
    parser.add_argument("--state", type=Path, default=Path("build/oneshot"), help="what runs measured, to go on from")
    given = parser.parse_args(arguments)
    task = Task(given.data, given.model)
    about = {**task.about, "bfloat16": has_fast_bf16(), "batch": BATCH, "rates": RATES}
    results = Results(given.out / "then-train.json", about, COMMAND)
    results.add("dense", {"method": "dense", **task.accuracy(task.model)})
    runs = Runs(task, given.model, given.state)
    ways: list[tuple[Any, float]] = [
        *((runs.one_shot, density) for density in DENSITIES),
        *((runs.movement, value) for value in LAMBDAS),
    ]

    def measured(run: Any, strength: float, seed: int, rate: float) -> dict[str, Row]:
        """Way to what was found of it; runs only what the file does not hold."""
        about = {"strength": strength, "seed": seed, "rate": rate}
        held = [row for row in results.data["rows"].values() if about.items() <= row.items()]
        found = {row["method"]: row for row in held} or run(strength, seed, rate)
        for name, row in found.items():
            results.add(f"{name}, rate {rate:g}, seed {seed}", {"method": name, **about, **row})
        return found

    chosen = {}
    for run, strength in ways:
        tried = {rate: measured(run, strength, SEEDS[0], rate) for rate in RATES}
        for name in tried[RATES[0]]:
            chosen[name] = best_rate({rate: tried[rate][name] for rate in RATES})
            results.add(name, {"method": "chosen rate", "of": name, "rate": chosen[name]})
    for seed in SEEDS[1:]:
        for run, strength in ways:
            mine = {row["method"] for row in results.data["rows"].values() if row.get("strength") == strength}
            for rate in sorted({chosen[name] for name in mine}):
                measured(run, strength, seed, rate)


if __name__ == "__main__":
    main()
