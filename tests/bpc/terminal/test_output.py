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


def test_a_file_gets_its_directory(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"--json .* is a directory; give the name of a file"):
        check_file("--json", tmp_path)
    check_file("--json", tmp_path / "new" / "a.json")
    assert (tmp_path / "new").is_dir()
    check_file("--json", None)


def test_a_place_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # tests may run as root, who may write anywhere
    with pytest.raises(CommandError, match="is not writable"):
        check_directory("--out", tmp_path / "new")
