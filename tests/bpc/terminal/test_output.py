"""Places that cannot be written to are refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpc.terminal.errors import CommandError
from bpc.terminal.output import check_directory, check_file


def test_a_directory_is_no_file_and_not_the_model(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(CommandError, match=r"--out .*taken is a file"):
        check_directory("--out", taken)
    with pytest.raises(CommandError, match=r"--out .*below: .*taken is a file"):
        check_directory("--out", taken / "below")
    with pytest.raises(CommandError, match="is the model itself"):
        check_directory("--out", tmp_path / ".", model=tmp_path)
    check_directory("--out", tmp_path / "new" / "deep", model=tmp_path)
    assert not (tmp_path / "new").exists()
    (tmp_path / "other").mkdir()
    check_directory("--out", tmp_path / "other")
    (tmp_path / "other" / "config.json").touch()
    with pytest.raises(CommandError, match="other holds a model that bpc did not write"):
        check_directory("--out", tmp_path / "other", model=tmp_path)


def test_a_file_gets_its_directory(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"--json .* is a directory; give the name of a file"):
        check_file("--json", tmp_path)
    check_file("--json", tmp_path / "new" / "a.json")
    assert (tmp_path / "new").is_dir()
    check_file("--json", None)


def test_no_file_of_what_is_read_is_replaced_but_products(tmp_path: Path) -> None:
    model, masks = tmp_path / "model", tmp_path / "masks.pt"
    (model / "deep").mkdir(parents=True)
    for file in (masks, model / "config.json", model / "deep" / "vocab.txt", model / "model.onnx"):
        file.touch()
    (tmp_path / "link").symlink_to(masks)
    with pytest.raises(CommandError, match=r"link is what is read"):
        check_file("--json", tmp_path / "link", model, None, masks)
    for name in ("config.json", "deep/vocab.txt", "../model/config.json"):
        with pytest.raises(CommandError, match=r"is one of the files of .*model and would be overwritten"):
            check_file("--json", model / name, model)
    check_file("--out", model / "model.onnx", model)
    check_file("--json", model / "new.json", model)
    check_file("--json", model / "config.json", masks)


def test_a_place_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # tests may run as root, who may write anywhere
    with pytest.raises(CommandError, match="is not writable"):
        check_directory("--out", tmp_path / "new")
