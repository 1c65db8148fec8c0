"""Small ONNX files of a text classifier: bytes, load time and memory, latency, and what rounding costs in accuracy.

    python benchmarks/small_files.py --model DIR --train TRAIN --dev DEV [--halve --epochs 2]

DIR: a sequence classifier of transformers with its tokenizer; TRAIN and DEV: a label and a text per line. Accuracy on
the last 1,000 of TRAIN, which training leaves out, is what to choose by; that on DEV is for the report. ``--halve``
takes out the half of the heads and of the FFN dims of every layer that have the smallest weights, and trains the small
model for some epochs. Latency: 8 x 64, one thread, CPU clock, the files taking turns; memory and seconds are those of a
session that is opened and run once, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import peak, resident
from torch import nn

FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, storage float16": {"storage": "float16"},
    "int8, embeddings float32": {"dtype": "int8", "embeddings": "float32"},
    "int8": {"dtype": "int8"},
    "int8, storage float16": {"dtype": "int8", "storage": "float16"},
    "int8, embeddings int4": {"dtype": "int8", "embeddings": "int4"},
    "int8, embeddings int4, storage float16": {"dtype": "int8", "embeddings": "int4", "storage": "float16"},
}
LENGTH, BATCH = 64, 8


def rows_of(path: Path) -> list[tuple[int, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(int(label), text) for label, text in (line.split(" ", 1) for line in lines)]


def masks(model: nn.Module) -> dict[str, torch.Tensor]:
    """Half of each layer's heads and FFN dims, those with the larger weights (BERT's names)."""
    kept: dict[str, torch.Tensor] = {}
    parameters = dict(model.named_parameters())
    heads = model.config.num_attention_heads
    for name, weight in parameters.items():
        if name.endswith("attention.output.dense.weight"):
            groups, readers = (
                heads,
                [name.replace("output.dense.weight", f"self.{n}") for n in ("query", "key", "value")],
            )
        elif name.endswith("output.dense.weight"):
            groups, readers = weight.shape[1], [name.replace("output.dense.weight", "intermediate.dense")]
        else:
            continue
        norms = weight.detach().reshape(len(weight), groups, -1).norm(dim=(0, 2))
        live = (norms >= norms.median()).repeat_interleave(weight.shape[1] // groups)
        kept[name] = live[None].expand_as(weight)
        for reader in readers:
            kept[f"{reader}.weight"] = live[:, None].expand_as(parameters[f"{reader}.weight"])
            kept[f"{reader}.bias"] = live
    return kept


def encode(tokenizer: Any, texts: list[str], kind: str) -> Any:
    return tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors=kind)


def train(model: nn.Module, tokenizer: Any, rows: list[tuple[int, str]], epochs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-5, weight_decay=0.01)
    steps = epochs * (len(rows) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-5, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator)
        for batch in order[: len(rows) // 32 * 32].view(-1, 32).tolist():
            given = encode(tokenizer, [rows[i][1] for i in batch], "pt")
            model(**given, labels=torch.tensor([rows[i][0] for i in batch])).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()


def opened(path: str, inputs: str) -> None:
    """Open a file and run it once; prints seconds and growth of memory as JSON."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with np.load(inputs) as arrays:
        feed = dict(arrays)
    before, start = resident(), time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - start
    session.run(None, {value.name: feed[value.name] for value in session.get_inputs()})
    print(json.dumps({"load s": round(seconds, 2), "peak MB": round((peak() - before) / 1e6)}))


def logits(path: Path, tokenizer: Any, rows: list[tuple[int, str]]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = []
    for start in range(0, len(rows), 16):
        texts = [text for _, text in rows[start : start + 16]]
        given = encode(tokenizer, texts, "np")
        found.append(session.run(None, {value.name: given[value.name] for value in session.get_inputs()})[0])
    return np.concatenate(found)


def main() -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    import passes
    from bpc import DenseModel
    from bpc.emit import export_onnx
    from bpc.timing.alternate import Worker, alternate

    parser = argparse.ArgumentParser()
    for name in ("model", "train", "dev"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--halve", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForSequenceClassification.from_pretrained(given.model, dtype=torch.float32).eval()
    rows = rows_of(given.train)
    chosen, rows, dev = rows[-1000:], rows[:-1000], rows_of(given.dev)
    example = tokenizer([text for _, text in rows[:2]], padding=True, return_tensors="pt")
    example = {name: example[name] for name in ("input_ids", "attention_mask")}
    graph = passes.trace(model, example)
    if given.halve:
        kept = masks(model)
        result = passes.shrink(graph, kept)
        with torch.no_grad():
            for name, mask in kept.items():
                model.get_parameter(name).mul_(mask)
        small = DenseModel.from_shrink(result, model).module
        train(small, tokenizer, rows, given.epochs)
        graph = passes.trace(small, example)
    timed = [" ".join(text for _, text in rows[i::BATCH]) for i in range(BATCH)]
    feed = encode(tokenizer, timed, "np")
    labels = np.array([label for label, _ in chosen + dev])
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, workers, reference = Path(name), [], None
        np.savez(folder / "feed.npz", **feed)
        for form, options in FORMS.items():
            path = export_onnx(graph, folder / f"{len(table)}.onnx", **options).path
            found = logits(path, tokenizer, chosen + dev)
            right = 100 * (found.argmax(1) == labels)
            reference = found if reference is None else reference
            command = [sys.executable, __file__, "opened", str(path), str(folder / "feed.npz")]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            spread = (reference - reference.mean(0)).std()
            table[form] = {
                "MB": round(path.stat().st_size / 1e6, 2),
                **json.loads(said.splitlines()[-1]),
                "accuracy": f"{right[: len(chosen)].mean():.2f}",
                "on dev": f"{right[len(chosen) :].mean():.2f}",
                "logits off by": f"{np.sqrt(np.square(found - reference).mean()) / spread:.4f}",
            }
            wanted = {"kind": "onnx", "path": str(path), "inputs": str(folder / "feed.npz"), "threads": 1}
            workers.append(stack.enter_context(Worker(form, wanted)))
        for timing in alternate(workers, repeats=31, clock="cpu"):
            table[timing.name]["ms"] = round(1e3 * timing.median, 1)
    columns = list(table["int8"])
    print(f"{len(chosen)} and {len(dev)} texts\n| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for form, cells in table.items():
        print(f"| {form} | {' | '.join(str(cells[column]) for column in columns)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["opened"]:
        opened(*sys.argv[2:])
    else:
        main()
