"""One-shot pruning from files to files, against the same in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bpc.oneshot import Target, TargetError, prune_once, stream_prune_once, streamed
from bpc.oneshot.batches import CalibrationError
from bpc.streaming.checkpoint import Checkpoint
from tests.bpc.oneshot.models import made

SETTING: dict[str, Any] = {"multiple": 1, "effort": 0.2, "progress": False}


class Watched(Mapping[str, torch.Tensor]):
    """Numbers that are copied for whoever asks, and how many bytes of these copies there are at a time."""

    def __init__(self, source: Mapping[str, torch.Tensor]) -> None:
        self.source, self.alive, self.most = source, 0, 0

    def __getitem__(self, name: str) -> torch.Tensor:
        copied = self.source[name].clone()
        self.alive += copied.nbytes
        self.most = max(self.most, self.alive)
        weakref.finalize(copied.untyped_storage(), self._gone, copied.nbytes)
        return copied

    def _gone(self, size: int) -> None:
        self.alive -= size

    def __contains__(self, name: object) -> bool:
        return name in self.source

    def __iter__(self) -> Iterator[str]:
        return iter(self.source)

    def __len__(self) -> int:
        return len(self.source)


def saved(name: str, folder: Path) -> tuple[nn.Module, nn.Module, Any]:
    """A model, the same on the meta device beside its files in ``folder``, and batches."""
    model, batches = made(name)
    model.save_pretrained(folder)
    return model, type(model).from_pretrained(folder, device_map="meta"), batches


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_files_become_what_the_model_in_memory_becomes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, shell, batches = saved(name, tmp_path / "model")
    read: list[Watched] = []

    def watched(*given: Any) -> Watched:
        read.append(Watched(Checkpoint(*given)))
        return read[0]

    monkeypatch.setattr(streamed, "Checkpoint", watched)
    in_memory = prune_once(model, batches, Target(density=0.5), verify=False, **SETTING)
    in_memory.save_pretrained(tmp_path / "whole")
    done, report = stream_prune_once(
        shell, tmp_path / "model", batches, Target(density=0.5), tmp_path / "small", **SETTING
    )
    chosen = in_memory.one_shot
    assert chosen is not None
    assert [c.kept for c in report.choices] == [c.kept for c in chosen.choices]
    assert any(c.kept < c.count for c in report.choices)
    assert report.divergence == pytest.approx(chosen.divergence, rel=1e-3)
    files = [load_file(tmp_path / folder / "model.safetensors") for folder in ("whole", "small")]
    assert {n: t.shape for n, t in files[0].items()} == {n: t.shape for n, t in files[1].items()}
    for key, tensor in files[0].items():
        torch.testing.assert_close(files[1][key], tensor, rtol=1e-4, atol=1e-5)
    assert done.layers is not None
    assert read[0].most < sum(p.nbytes for p in model.parameters()) / 2
    assert {path.name for path in tmp_path.iterdir()} == {"model", "whole", "small"}


def test_what_needs_the_model_in_memory_is_refused(tmp_path: Path) -> None:
    _, shell, batches = saved("t5", tmp_path / "model")
    with pytest.raises(TargetError, match="whole models, which are not in memory"):
        stream_prune_once(shell, tmp_path / "model", batches, 2.0, tmp_path / "small", **SETTING)
    unwritten = [{k: v for k, v in batch.items() if k != "decoder_input_ids"} for batch in batches]
    with pytest.raises(CalibrationError, match="give batches with decoder_input_ids"):
        stream_prune_once(shell, tmp_path / "model", unwritten, Target(density=0.5), tmp_path / "small", **SETTING)
    assert not (tmp_path / "small").exists()
