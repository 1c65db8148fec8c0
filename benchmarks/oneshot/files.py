"""Whole files: bytes and accuracy of pruned models as float32 and int8 ONNX files, vocabularies trimmed or not.

    python benchmarks/oneshot/files.py --data DIR --model DIR [--out results/oneshot] [sst2] [tweets]

``sst2``: the model and sentences of sst2.py, half of the prunable weights, three draws of calibration sentences.
``tweets``: all-MiniLM-L6-v2 fine-tuned on tweets, its vocabulary trimmed to 99 % of the training tweets' tokens, then
pruned with 512 of the training tweets; accuracy on the 4,000 held-out tweets, by which nothing was chosen. ONNX Runtime
runs every file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sst2 import LENGTH, SEEDS, Task
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import bpc
import passes
from benchmarks.training import Phase, encode, load_classifier, train
from bpc.oneshot import Target
from examples.tweets import data as tweets
from results import Results, sha256

FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"dtype": "int8"},
    "int8, embeddings int4": {"dtype": "int8", "embeddings": "int4"},
}
COMMAND = "python benchmarks/oneshot/files.py --data DIR --model DIR"
TUNING = {"epochs": 2, "rate": 5e-5, "batch": 32, "seed": 0, "tweets": 12000}
COVERAGE, CALIBRATION = 0.99, 512
Rows = Sequence[tuple[int, str]]


def answers(file: Path, tokenizer: Any, rows: Rows) -> np.ndarray:
    """What ONNX Runtime says to each text (rows)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][1]))
    found = np.zeros(len(rows), dtype=int)
    for start in range(0, len(order), 32):
        chosen = order[start : start + 32]
        texts = [rows[i][1] for i in chosen]
        given = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="np")
        (logits,) = session.run(None, {value.name: given[value.name] for value in session.get_inputs()})
        found[chosen] = logits.argmax(-1)
    return found


def measured(model: Any, tokenizer: Any, sets: dict[str, Rows], folder: Path) -> dict[str, Any]:
    """By form: bytes, and for each set how often it is right, and where only it or only the float32 file is."""
    found: dict[str, Any] = {}
    if not isinstance(model, bpc.DenseModel):
        model = passes.trace(model, dict(tokenizer(["a film", "a good film"], padding=True, return_tensors="pt")))
    exact: dict[str, np.ndarray] = {}
    for form, options in FORMS.items():
        file = bpc.export_onnx(model, folder / "file.onnx", **options).path
        row: dict[str, Any] = {"bytes": file.stat().st_size}
        for name, rows in sets.items():
            right = answers(file, tokenizer, rows) == np.array([label for label, _ in rows])
            before = exact.setdefault(name, right)
            row[name] = {
                "accuracy": float(right.mean()),
                "only this right": int((right & ~before).sum()),
                "only float32 right": int((before & ~right).sum()),
            }
        found[form] = row
    return found


def on_sst2(given: argparse.Namespace) -> None:
    task = Task(given.data, given.model)
    results = Results(given.out / "files-sst2.json", task.about, f"{COMMAND} sst2")
    if not results.get("dense"):
        results.add("dense", {"method": "dense", "forms": measured(task.model, task.tokenizer, task.sets, given.state)})
    for seed in SEEDS:
        if results.get(f"seed {seed}"):
            continue
        dense = bpc.prune_once(
            task.model,
            task.sentences(seed),
            Target(density=1 / 2),
            tokenizer=task.tokenizer,
            max_length=LENGTH,
            state=given.state / f"sst2-{seed}",
        )
        forms = measured(dense, task.tokenizer, task.sets, given.state)
        results.add(f"seed {seed}", {"method": "ours", "seed": seed, "density": 1 / 2, "forms": forms})


def tuned(directory: Path, rows: Sequence[tweets.Tweet]) -> tuple[Any, Any]:
    """The encoder fine-tuned on tweets, and its tokenizer; trained where ``directory`` does not hold it."""
    if not (directory / "model.safetensors").exists():
        torch.manual_seed(int(TUNING["seed"]))
        encoder = tweets.encoder_directory()
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        model = load_classifier(encoder, dropout=0.1)
        run = (TUNING["epochs"], TUNING["rate"], int(TUNING["batch"]), int(TUNING["seed"]))
        train(Phase("fine-tuning", directory / "run", *run), encode(rows, tokenizer), tokenizer, model=model)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return AutoModelForSequenceClassification.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(
        directory
    )


def on_tweets(given: argparse.Namespace) -> None:
    split = tweets.split_tweets(tweets.read_tweets(tweets.tweets_file()), train_size=int(TUNING["tweets"]))
    model, tokenizer = tuned(given.state / "tweets", split.train)
    sets = {"held out": [(tweet.label, tweet.text) for tweet in split.test]}
    about = {
        "task": "tweets",
        "model": {
            "sha256": sha256(given.state / "tweets" / "model.safetensors"),
            "parameters": sum(p.numel() for p in model.parameters()),
            "training": TUNING,
        },
        "sha256": {"tweets": sha256(tweets.tweets_file())},
        "examples": {name: len(rows) for name, rows in sets.items()},
        "calibration": {"tweets": CALIBRATION, "tokens at most": LENGTH},
        "vocabulary": {"coverage": COVERAGE, "characters": "used"},
    }
    results = Results(given.out / "files-tweets.json", about, f"{COMMAND} tweets")
    if not results.get("dense"):
        results.add("dense", {"method": "dense", "forms": measured(model, tokenizer, sets, given.state)})
    texts = [tweet.text for tweet in split.train]
    trimmed, short, report = bpc.trim_vocabulary(
        model, tokenizer, texts, coverage=COVERAGE, characters="used", held_out=[text for _, text in sets["held out"]]
    )
    if not results.get("trimmed"):
        forms = measured(trimmed, short, sets, given.state)
        results.add("trimmed", {"method": "trimmed", "tokens": len(short), "report": str(report), "forms": forms})
    for density in (1 / 2, 0.45, 1 / 3):
        key = f"trimmed, {density:.0%} kept"
        if not results.get(key):
            state = given.state / "tweets-oneshot"
            dense = bpc.prune_once(
                trimmed, texts[:CALIBRATION], Target(density=density), tokenizer=short, max_length=LENGTH, state=state
            )
            results.add(key, {"method": "ours", "density": density, "forms": measured(dense, short, sets, given.state)})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/oneshot"))
    parser.add_argument("--state", type=Path, default=Path("build/oneshot"), help="what runs measured, to go on from")
    parser.add_argument("what", nargs="*", default=["sst2", "tweets"], help="sst2, tweets")
    given = parser.parse_args(arguments)
    given.state.mkdir(parents=True, exist_ok=True)
    for what in given.what:
        {"sst2": on_sst2, "tweets": on_tweets}[what](given)


if __name__ == "__main__":
    main()
