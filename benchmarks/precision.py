"""``python -m benchmarks.precision``: what int8 costs the dense and the small model, on the held-out tweets."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import onnxruntime
import torch
import typer
from rich.table import Table
from torch import fx, nn
from transformers import AutoTokenizer, DataCollatorWithPadding

import bpc
import passes
from benchmarks.training import accuracy, encode, example_inputs, load_classifier
from bpc.terminal.console import quiet_console
from examples.tweets.data import encoder_directory, read_tweets, split_tweets, tweets_file

CALIBRATION_BATCHES, CALIBRATION_BATCH = 16, 32
PRECISIONS = ("float32", "int8, dynamic", "int8, static")


class FileModel(nn.Module):
    """An ONNX file that answers like a classifier."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.anchor = nn.Parameter(torch.zeros(1))  # says which device the inputs go to

    def forward(self, **inputs: torch.Tensor) -> Any:
        feed = {value.name: inputs[value.name].numpy() for value in self.session.get_inputs()}
        return SimpleNamespace(logits=torch.from_numpy(self.session.run(["logits"], feed)[0]))


def main(
    out: Annotated[Path, typer.Option(help="Of `make demo`: original/ and small/ are read.")] = Path("out"),
) -> None:
    """Accuracy of both models under ONNX Runtime in float32 and int8; static scales come from training tweets."""
    console = quiet_console()
    tokenizer = AutoTokenizer.from_pretrained(encoder_directory())
    split = split_tweets(read_tweets(tweets_file()))
    held_out = encode(split.test, tokenizer)
    calibration = _calibration(split.train, tokenizer)
    dense = load_classifier(out / "original", dropout=0.0).eval()
    graphs = {
        "dense": passes.trace(dense, example_inputs(tokenizer)),
        "small": bpc.load(out / "small").graph_module,
    }
    table = Table(title=f"accuracy, {len(held_out):,} tweets, ONNX Runtime")
    for column in ("", *PRECISIONS, "lost to dynamic", "lost to static"):
        table.add_column(column, justify="left" if not column else "right")
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in graphs.items():
            files = _files(graph, Path(folder), name, calibration)
            found = [accuracy(FileModel(file), held_out, tokenizer) for file in files]
            lost = [f"{100 * (found[0].value - other.value):+.2f} points" for other in found[1:]]
            table.add_row(name, *map(str, found), *lost)
    console.print(table)


def _files(graph: fx.GraphModule, folder: Path, name: str, calibration: list[dict[str, torch.Tensor]]) -> list[Path]:
    return [
        bpc.export_onnx(graph, folder / f"{name}-float32.onnx").path,
        bpc.export_onnx(graph, folder / f"{name}-dynamic.onnx", dtype="int8").path,
        bpc.export_onnx(graph, folder / f"{name}-static.onnx", dtype="int8", calibration=calibration).path,
    ]


def _calibration(tweets: Any, tokenizer: Any) -> list[dict[str, torch.Tensor]]:
    """Batches of training tweets, padded: the held-out ones stay unseen."""
    collate = DataCollatorWithPadding(tokenizer, return_tensors="pt")
    encoded = encode(tweets[: CALIBRATION_BATCHES * CALIBRATION_BATCH], tokenizer)
    batches = [
        collate([{"input_ids": e["input_ids"]} for e in encoded[i : i + CALIBRATION_BATCH]])
        for i in range(0, len(encoded), CALIBRATION_BATCH)
    ]
    return [{"input_ids": b["input_ids"], "attention_mask": b["attention_mask"]} for b in batches]


if __name__ == "__main__":
    typer.run(main)
