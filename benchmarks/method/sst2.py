"""SST-2: gradual one-shot pruning with recovery, against movement pruning to a target and simpler choices.

    PYTHONPATH=benchmarks/oneshot python -m benchmarks.method.sst2 --data DIR --model DIR [--only TEXT …]

Model, sentences and splits are those of benchmarks/oneshot/sst2.py: the last 1,000 training sentences validate, and
everything that is chosen is chosen by them, with the first seed; dev is read for the table.

*Gradual*: `bpc.prune_once` to the first speed-up, training, from there to the next, training, … One run gives a family.
Training distils the dense model on all other training sentences, with frozen embeddings: logits, and hidden states with
a weight. The others get as many epochs at each speed-up as the family had when it came there. *Movement*: one run to
each target. *Layers*: whole layers taken out. *Magnitude*, *random*, *reverse*: the family's widths, other units;
*reverse* keeps those that ours takes first, and is refitted as ours is.

Rows that the file holds are not measured again, and a family goes on from the last model in --state.
"""

from __future__ import annotations

import argparse
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import baselines
import torch
from safetensors.torch import load_file, save_file
from setting import calibrated
from sst2 import CALIBRATION, LENGTH, SEEDS, Task, speeds
from torch import nn
from transformers import AutoModelForSequenceClassification

import bpc
import passes
from benchmarks.training import Phase, encode, logits, train, with_teacher
from bpc.cli.training import has_fast_bf16
from bpc.costs import Costs
from bpc.dense import DenseModel
from bpc.oneshot import Target
from bpc.oneshot.costs import measured
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import measure_ladders
from bpc.oneshot.stream import Original
from examples.tweets.data import Tweet
from results import Results

COMMAND = "PYTHONPATH=benchmarks/oneshot python -m benchmarks.method.sst2 --data DIR --model DIR"
SPEEDUPS, BATCH = (2.0, 3.5, 6.0), 32
Row = dict[str, Any]


@dataclass(frozen=True)
class Recovery:
    """How a pruned model is trained: epochs after each stage of pruning, learning rate, weight of hidden states."""

    hidden: float
    epochs: int = 1
    rate: float = 1e-4

    def __str__(self) -> str:
        return f"hidden {self.hidden:g}, {self.epochs} epochs a stage, rate {self.rate:g}"


# Tried with the first seed, in this order; what has the best validation accuracy, meant over speed-ups, is chosen.
TRIED = (
    Recovery(10.0, rate=3e-5),
    Recovery(10.0, epochs=3, rate=3e-5),
    Recovery(0.0, epochs=3, rate=3e-5),
    Recovery(10.0, epochs=3),
    Recovery(0.0, epochs=3),
)


@contextmanager
def timed(row: Row, what: str) -> Iterator[None]:
    """Adds what is done inside to the row: seconds by the wall, and of this process's one thread."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    row[f"{what} s"] = time.perf_counter() - wall
    row[f"{what} cpu s"] = time.process_time() - cpu


class Runs:
    """All ways of pruning one model on one set of sentences."""

    def __init__(self, task: Task, directory: Path, state: Path, results: Results) -> None:
        self.task, self.directory, self.state, self.results = task, directory, state, results
        self.model = self._dense()
        state.mkdir(parents=True, exist_ok=True)
        self.data = encode([Tweet(text, label) for label, text in task.train], task.tokenizer)
        self.data = with_teacher(self.data, self._teacher())
        self.file = state / "dense.onnx"
        if not self.file.exists():
            bpc.export_onnx(
                calibrated(task.model, task.sentences(0), task.tokenizer, max_length=LENGTH).graph, self.file
            )

    def _dense(self, **options: Any) -> Any:
        """Without dropout, in all that is made of it: what is learnt is a teacher's answers."""
        quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return AutoModelForSequenceClassification.from_pretrained(self.directory, **quiet, **options).eval()

    def _setup(self, model: nn.Module, seed: int, sentences: int | None = None) -> Any:
        return calibrated(model, self.task.sentences(seed)[:sentences], self.task.tokenizer, max_length=LENGTH)

    @cached_property
    def _prices(self) -> Costs:
        """What heads and dims cost in the dense model: the same for all that is made of it."""
        setup, target = self._setup(self.model, seed=0, sentences=64), Target(speedup=1.0, threads=1)
        return measured(setup.graph, setup.sublayers, {}, target, alike=True)[0]

    def _teacher(self) -> torch.Tensor:
        """Its logits of all training sentences, asked for once."""
        file = self.state / f"teacher-{self.task.about['model']['sha256'][:12]}.safetensors"
        if not file.exists():
            save_file({"logits": logits(self.model, self.data, self.task.tokenizer)}, file)
        return load_file(file)["logits"]

    # ---- gradual ---------------------------------------------------------------------------------------------------

    def gradual(self, how: Recovery, seed: int, stages: int = len(SPEEDUPS)) -> None:
        model: nn.Module = self.model
        reached = 1.0
        for stage, wanted in enumerate(SPEEDUPS[:stages]):
            key, kept = f"gradual, {how}, {wanted:g}×, seed {seed}", self._folder("gradual", how, seed, stage)
            if self.results.get(key) is None or not kept.exists():
                row = {"method": "gradual", **self._about(how, seed, stage)}
                with timed(row, "pruning"):
                    dense = bpc.prune_once(
                        model,
                        self.task.sentences(seed),
                        Target(speedup=wanted / reached, threads=1),
                        tokenizer=self.task.tokenizer,
                        max_length=LENGTH,
                        prices=self._prices,
                        # The first stage is the same whatever comes after it.
                        state=self.state / f"ladders-{seed}" if stage == 0 else None,
                    )
                assert dense.one_shot is not None
                row["kept"] = {c.name: c.kept for c in dense.one_shot.choices}
                self._recovered(key, row, dense, how, seed)
                dense.save_pretrained(kept)
            model, reached = bpc.load(kept).module, self.results.data["rows"][key]["speed"]["speedup"]

    def other_units(self, method: str, how: Recovery, seed: int) -> None:
        """The widths of the family, stage by stage, of other units."""
        model: nn.Module = self.model
        for stage, wanted in enumerate(SPEEDUPS):
            ours = self.results.get(f"gradual, {how}, {wanted:g}×, seed {seed}")
            if ours is None:
                return
            key, folder = f"{method}, {how}, {wanted:g}×, seed {seed}", self._folder(method, how, seed, stage)
            if self.results.get(key) is None or not folder.exists():
                row = {"method": method, **self._about(how, seed, stage), "kept": ours["kept"]}
                with timed(row, "pruning"):
                    dense = self._other(method, model, ours["kept"], seed)
                self._recovered(key, row, dense, how, seed)
                dense.save_pretrained(folder)
            model = bpc.load(folder).module

    def _other(self, method: str, model: nn.Module, kept: dict[str, int], seed: int) -> DenseModel:
        setup = self._setup(model, seed)
        if method == "reverse":
            own, _ = measure_ladders(Original.of(setup.graph), setup.sublayers, setup.batches, setup.setting, heads={})
            ladders = {name: Ladder(ladder.order[::-1], {}) for name, ladder in own.items()}
            changed = setup.repaired(ladders, kept)
        else:
            scores = baselines.magnitude(setup) if method == "magnitude" else baselines.random(setup, seed)
            ladders = baselines.ladders_of(scores)
            changed = setup.zeroed(ladders, kept)
        again = self._setup(changed, seed, sentences=64)
        return DenseModel.from_shrink(passes.shrink(again.graph, again.masks(ladders, kept)), changed)

    # ---- others ----------------------------------------------------------------------------------------------------

    def layers(self, left: Sequence[int], how: Recovery, seed: int, stage: int) -> None:
        """Only the layers in ``left``; as many epochs as the family has at the speed-up that is nearest."""
        key = f"layers {[*left]}, {how}, seed {seed}"
        if self.results.get(key) is not None:
            return
        model: Any = baselines.drop(self.model, [i for i in range(6) if i not in left])
        row: Row = {"method": f"layers {' '.join(str(i + 1) for i in left)}", **self._about(how, seed, stage)}
        row["before"] = self.task.accuracy(model)
        whole = replace(how, epochs=how.epochs * (stage + 1))
        self._trained(row, model, whole, seed, model=model)
        setup = self._setup(model, seed, sentences=64)
        row["kept"] = {s.name: s.count for s in setup.sublayers}
        row["parameters"] = sum(p.numel() for p in model.parameters())
        self.results.add(key, {**row, **self.task.accuracy(model), "speed": speeds(self.file, {"s": setup.graph})["s"]})

    def movement(self, how: Recovery, seed: int, stage: int) -> None:
        key = f"movement, {how}, {SPEEDUPS[stage]:g}×, seed {seed}"
        if self.results.get(key) is not None:
            return
        model = self._dense(attn_implementation="eager")
        example = self.task.tokenizer(["a film", "a good film"], padding=True, return_tensors="pt")
        inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
        row: Row = {"method": "movement", **self._about(how, seed, stage)}
        with timed(row, "pruning"):
            program = bpc.compile(model, "struct", inputs, target=Target(speedup=SPEEDUPS[stage], threads=1))
        whole = replace(how, epochs=how.epochs * (stage + 1))
        self._trained(row, model, whole, seed, program=program)
        dense = program.shrink()
        self._measured(key, row, dense)

    # ---- what all share --------------------------------------------------------------------------------------------

    def _about(self, how: Recovery, seed: int, stage: int) -> Row:
        settings = {"hidden": how.hidden, "epochs a stage": how.epochs, "rate": how.rate}
        return {**settings, "seed": seed, "target": SPEEDUPS[stage], "epochs": how.epochs * (stage + 1)}

    def _folder(self, method: str, how: Recovery, seed: int, stage: int) -> Path:
        return self.state / f"{method} {how} seed {seed} stage {stage}".replace(",", "").replace(" ", "-")

    def _recovered(self, key: str, row: Row, dense: DenseModel, how: Recovery, seed: int) -> None:
        row["before"] = self.task.accuracy(dense.module.eval())
        self._trained(row, dense.module, how, seed, model=dense.module)
        self._measured(key, row, dense)

    def _measured(self, key: str, row: Row, dense: DenseModel) -> None:
        assert dense.report is not None
        row["parameters"] = dense.report.parameters_after
        speed = speeds(self.file, {"small": dense.graph_module})["small"]
        self.results.add(key, {**row, **self.task.accuracy(dense.module.eval()), "speed": speed})

    def _trained(self, row: Row, module: Any, how: Recovery, seed: int, **options: Any) -> None:
        if "model" in options:  # a program knows which of its parameters learn
            module.requires_grad_(True)
        module.get_input_embeddings().requires_grad_(False)
        folder = self.state / "training"
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(seed)
        teacher = {"teacher": self.model, "hidden_weight": how.hidden} if how.hidden else {}
        with timed(row, "training"):
            phase = Phase("training", folder, how.epochs, how.rate, BATCH, seed)
            train(phase, self.data, self.task.tokenizer, **options, **teacher)
        shutil.rmtree(folder, ignore_errors=True)
        module.eval()


def best(rows: Iterable[Row], seed: int, tried: Sequence[Recovery] = TRIED) -> Recovery:
    """Of what was tried to all speed-ups, that with the best validation accuracy, meant over them."""
    found: dict[Recovery, list[float]] = {}
    for row in rows:
        if row["method"] == "gradual" and row["seed"] == seed:
            how = Recovery(row["hidden"], row["epochs a stage"], row["rate"])
            found.setdefault(how, []).append(row["validation"]["accuracy"])
    whole = {how: sum(values) for how, values in found.items() if len(values) == len(SPEEDUPS) and how in tried}
    return max(whole, key=lambda how: whole[how])


LAYERS = (((0, 2, 4), 0), ((0, 1, 2), 0), ((1, 4), 1), ((0, 1), 1), ((0,), 2))  # kept, and the stage whose epochs


def queue(runs: Runs, results: Results) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is to be measured, the most telling first."""
    first = SEEDS[0]

    def chosen() -> Recovery:
        return best(results.data["rows"].values(), first)

    for how in TRIED:
        yield f"gradual {how} {first}", lambda how=how: runs.gradual(how, first)
    for seed in SEEDS[1:]:
        yield f"gradual chosen {seed}", lambda seed=seed: runs.gradual(chosen(), seed)
    for left, stage in LAYERS:
        yield f"layers {left} {first}", lambda left=left, stage=stage: runs.layers(left, chosen(), first, stage)
    for seed in SEEDS:
        for stage in range(len(SPEEDUPS)):
            yield f"movement {seed}", lambda s=seed, t=stage: runs.movement(chosen(), s, t)
        for method in ("magnitude", "random", "reverse"):
            yield f"{method} {seed}", lambda m=method, s=seed: runs.other_units(m, chosen(), s)
    for seed in SEEDS[1:]:
        for left, stage in LAYERS:
            yield f"layers {left} {seed}", lambda a=left, s=seed, t=stage: runs.layers(a, chosen(), s, t)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/method"))
    parser.add_argument(
        "--state", type=Path, default=Path("build/method"), help="models and measurements to go on from"
    )
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the queue whose name begins so")
    given = parser.parse_args(arguments)
    task = Task(given.data, given.model)
    about = {**task.about, "bfloat16": has_fast_bf16(), "batch": BATCH, "calibration": CALIBRATION}
    results = Results(given.out / "sst2.json", about, COMMAND)
    results.add("dense", {"method": "dense", **task.accuracy(task.model)})
    runs = Runs(task, given.model, given.state, results)
    for name, run in queue(runs, results):
        if name.startswith(tuple(given.only)):
            print(name, flush=True)
            try:
                run()
            except Exception:  # what follows in the queue does not hang on it
                traceback.print_exc()


if __name__ == "__main__":
    main()
