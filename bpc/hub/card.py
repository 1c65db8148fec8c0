"""The model card of a saved directory: what was pruned, what vouches for it, how to load it.

It says what is known and measured where it is saved; accuracy and speed where a command measured them
(`add_measurements`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from bpc.hub.note import Note, note_of
from bpc.hub.sizes import skeleton, tensors_of
from bpc.hub.standalone import auto_classes
from bpc.writing import write_text
from passes.certificate import Certificate

NAME = "README.md"
_MARK = "<!-- Written by bpc. Without this line bpc leaves the card alone. -->"
_MEASURED = "## What was measured"
_GENERAL = ("AutoModel", "AutoModelForPreTraining")


def is_ours(file: Path) -> bool:
    """Nothing is there, or a card that `card` made and nobody has taken over."""
    return not file.exists() or (file.is_file() and _MARK in file.read_text(encoding="utf-8", errors="replace"))


def card(module: Any, certificate: Certificate | None, standalone: bool, chosen: Any = None) -> str:
    """The card's text. ``chosen``: what `bpc.prune_once` reports, where that made the model."""
    note = note_of(module.config)
    data = ModelCardData(library_name="transformers", tags=["bpc", "pruning"], base_model=_base(module.config))
    full = sum(tensor.numel() for tensor in skeleton(module).parameters())
    small = sum(tensor.numel() for tensor in module.parameters())
    sections = [
        f"---\n{data.to_yaml()}\n---\n{_MARK}",
        f"# {type(module).__name__}, made smaller",
        "Heads, feed-forward dims and layers that were pruned are gone from the weights; what they added that is "
        "constant is in the biases. The layers are ordinary dense ones of other sizes.",
        f"## Sizes\n\nParameters: {full:,} by the config, {small:,} here ({small / max(1, full):.1%}).",
        _table(module, note),
        f"## What vouches for it\n\n{_verification(certificate)}",
        f"## Loading\n\n{_loading(module, standalone)}",
    ]
    if chosen is not None:
        sections.insert(5, f"## How it was pruned\n\nWithout training, from examples:\n\n```\n{chosen}\n```")
    text = "\n\n".join(section for section in sections if section) + "\n"
    return str(ModelCard(text))


def _base(config: Any) -> str | None:
    """The hub's id of the model that it was made of; a path of this machine is nobody's business."""
    name = str(getattr(config, "_name_or_path", "") or "")
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None


def _table(module: nn.Module, note: Note) -> str:
    """Sizes of the tensors that are smaller in some layer, a row for all layers: ``layers.N.mlp.up_proj.weight``."""
    sizes = tensors_of(module)
    groups: dict[tuple[str, int], list[str]] = {}
    for name, dims in note.shapes.items():
        for dim in dims:
            groups.setdefault((_pattern(name), dim), [])
    for name in sizes:
        for dim in range(sizes[name].dim()):
            if (_pattern(name), dim) in groups:
                groups[_pattern(name), dim].append(name)
    rows = []
    for (pattern, dim), names in groups.items():
        by_config = next(c for n in names if dim in note.shapes.get(n, {}) for c in note.shapes[n][dim][:1])
        rows.append(f"| `{pattern}` | {dim} | {by_config:,} | {' '.join(str(sizes[n].shape[dim]) for n in names)} |")
    if not rows:
        return ""
    return "\n".join(["| tensor | dim | by the config | here, by layer |", "|---|---|---:|---|", *rows])


def _pattern(name: str) -> str:
    return ".".join("N" if part.isdigit() else part for part in name.split("."))


def _verification(certificate: Certificate | None) -> str:
    if certificate is None:
        return (
            "Nothing: the weights have been trained, cast or made anew since the model was made smaller, so that no "
            "certificate lies beside them."
        )
    bpc = certificate.versions.get("bpc", "unknown")
    agreement: Mapping[str, Any] | None = certificate.agreement
    ran = "The small and the masked model were not run against each other."
    if agreement is not None and "max_abs_diff" in agreement:
        ran = (
            f"The small graph was run against the masked model on {len(agreement['shapes'])} input shapes "
            f"({certificate.dtype}): largest difference {float(agreement['max_abs_diff']):.2e}, where rounding alone "
            f"makes {float(agreement['floor']):.2e}."
        )
    return (
        f"{ran} `certificate.json` holds the hashes of both models' weights, the plan between them and the passes that "
        f"ran (bpc {bpc}); `bpc verify DIRECTORY --against MASKED` checks it with code that had no part in making it."
    )


def _loading(module: nn.Module, standalone: bool) -> str:
    doors = sorted(_doors(module))
    door = doors[0] if doors else type(module).__name__
    text = (
        f"```python\nimport bpc  # block-pruning-compiler: teaches transformers the sizes\n"
        f"from transformers import {door}\n\nmodel = {door}.from_pretrained(DIRECTORY)\n```"
    )
    if standalone:
        text += (
            f"\n\nWithout bpc, by the Python file in this directory, which is then run:\n\n```python\n"
            f"model = {door}.from_pretrained(DIRECTORY, trust_remote_code=True)\n```"
        )
    return text


def _doors(module: nn.Module) -> Iterator[str]:
    name = type(module).__name__
    yield from (auto for auto, made in auto_classes(module).items() if made == name and auto not in _GENERAL)


def add_measurements(directory: Path, table: str) -> None:
    """Add what was measured to a card that `card` made; one that somebody has taken over stays as it is."""
    file = directory / NAME
    if not file.exists() or not is_ours(file):
        return
    text = re.sub(rf"\n*{_MEASURED}.*\Z", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    write_text(file, f"{text.rstrip()}\n\n{_MEASURED}\n\n{table}\n")
