"""Tensors in files: which file of a directory, and what is refused without unpickling."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from passes.masks import files
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


NO_MEMORY = (
    MemoryError("Cannot allocate memory (os error 12)"),  # safetensors, of its own mapping
    RuntimeError("unable to mmap 268435536 bytes from file </a>: Cannot allocate memory (12)"),  # torch, of the next
)


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_file_that_memory_is_lacking_for_is_not_called_damaged(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"a": A}, tmp_path / "model.safetensors")
    torch.save({"a": A}, tmp_path / "all.pt")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(files, "safe_open", fail)
    monkeypatch.setattr(torch, "load", fail)
    for name in ("model.safetensors", "all.pt"):
        with pytest.raises(MaskError, match=rf"{name} could not be read, for lack of memory .*ulimit -v"):
            TensorFile(tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_limit_of_memory_is_told_as_one(tmp_path: Path) -> None:
    import resource

    save_file({"a": torch.zeros(2**26, dtype=torch.uint8)}, tmp_path / "model.safetensors")
    held = TensorFile(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for room in (2**24, 2**26 + 2**24):  # for neither of the two mappings; for one
        resource.setrlimit(resource.RLIMIT_AS, (used + room, before[1]))
        try:
            with pytest.raises(MaskError, match="for lack of memory"):
                held["a"]
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_file_that_may_not_be_opened_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": A}, tmp_path / "model.safetensors")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise FileNotFoundError("No such file or directory: model.safetensors")  # safetensors, where EMFILE was meant

    monkeypatch.setattr(files, "safe_open", fail)
    with pytest.raises(MaskError, match=r"could not be read: .*permissions.*ulimit -n"):
        TensorFile(tmp_path)
