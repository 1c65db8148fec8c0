"""Tensors in files: which file of a directory, and what is refused without unpickling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from passes.masks.check import MaskError
from passes.masks.files import INDEX, TensorFile

A, B = torch.tensor([True, False]), torch.tensor([False])


def test_a_directory_an_index_and_a_torch_file_hold_the_same(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "one.safetensors")
    save_file({"b": B}, tmp_path / "two.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    torch.save({"a": A, "b": B, "step": 3}, tmp_path / "all.pt")
    for path in (tmp_path, tmp_path / INDEX, tmp_path / "all.pt"):
        found = TensorFile(path)
        assert sorted(found) == ["a", "b"]
        assert torch.equal(found["a"], A)
        assert torch.equal(found["b"], B)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors"),
        ([A], "holds a list; a state dict is needed"),
        ({"model": {"a": A}}, "one level down, under 'model'"),
    ],
)
def test_torch_files_without_a_state_dict_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "masks.pt")
    with pytest.raises(MaskError, match=message):
        TensorFile(tmp_path / "masks.pt")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"nothing\.pt does not exist"):
        TensorFile(tmp_path / "nothing.pt")
    with pytest.raises(MaskError, match=r"holds neither model\.safetensors nor"):
        TensorFile(tmp_path)
    (tmp_path / "text.safetensors").write_text("hello, this is text")
    with pytest.raises(MaskError, match="is no safetensors file"):
        TensorFile(tmp_path / "text.safetensors")


def test_whether_a_tensor_is_there_is_known_without_reading_it(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "model.safetensors")
    held = TensorFile(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert ("a" in held, "b" in held) == (True, False)
