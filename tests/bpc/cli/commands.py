"""The commands in this process, and masks to give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

from bpc.cli import app
from bpc.terminal.errors import BUG


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code != BUG, result.output
    return result


def prune(model: Path, data: Path, out: Path, spec: Path, *more: Any) -> Result:
    options = {"--model": model, "--data": data, "--out": out, "--spec": spec, "--epochs": 2, "--batch-size": 8}
    return run("prune", *(part for option in options.items() for part in option), "--no-time", *more)


def heads_masks(model: Path) -> dict[str, torch.Tensor]:
    """The first layer's head 1 and FFN dims 10 to 39, gone."""
    weights = load_file(model / "model.safetensors")
    layer = "bert.encoder.layer.0"
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items() if name.startswith(layer)}
    masks = {name: mask for name, mask in masks.items() if "LayerNorm" not in name}
    for part in ("query", "key", "value"):
        for kind in ("weight", "bias"):
            masks[f"{layer}.attention.self.{part}.{kind}"][8:16] = False
    masks[f"{layer}.attention.output.dense.weight"][:, 8:16] = False
    for kind in ("weight", "bias"):
        masks[f"{layer}.intermediate.dense.{kind}"][10:40] = False
    masks[f"{layer}.output.dense.weight"][:, 10:40] = False
    return masks
