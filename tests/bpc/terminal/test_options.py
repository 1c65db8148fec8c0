"""Options that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpc.terminal.options import dtype_named, is_screen, write_json


def test_dtypes_have_short_names() -> None:
    assert [dtype_named(name) for name in ("fp16", "bf16", "fp32", "int8")] == [
        "float16",
        "bfloat16",
        "float32",
        "int8",
    ]


def test_json_goes_to_the_file_the_screen_or_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(None, lambda: pytest.fail("made for nobody"))
    write_json(tmp_path / "f.json", lambda: "1")
    assert (tmp_path / "f.json").read_text() == "1"
    assert is_screen(Path("-"))
    assert capsys.readouterr().out == ""
    write_json(Path("-"), lambda: "2")
    assert capsys.readouterr().out == "2\n"
