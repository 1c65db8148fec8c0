"""What `bpc bench` measures and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from bpc.results import read_result
from tests.bpc.cli.commands import run


@pytest.mark.slow
def test_bench_times_directories_and_writes_json(model_directory: Path, tmp_path: Path) -> None:
    sides = ("--dense", model_directory, "--small", model_directory, "--json", tmp_path / "bench.json")
    extra = ("--profile", "--plot", tmp_path / "bench.png")
    result = run("bench", *sides, "--shape", "2x8", "--shape", "1x5", "--repeats", "7", "--threads", "1", *extra)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "bench.json").read_text())["details"]["comparisons"]
    assert [(row["batch"], row["length"]) for row in rows] == [(2, 8), (1, 5)]
    figures = read_result(tmp_path / "bench.json").figures
    assert [f.name for f in figures] == ["time", "arithmetic", "speed-up over arithmetic"] * 2
    assert figures[0].original is not None
    assert figures[0].original.raw == rows[0]["dense"]["seconds"]
    assert all(row["arithmetic_ratio"] == 1.0 and row["speedup"] > 0 for row in rows)
    assert result.output.count("time per operator") == 2
    assert "LayerNormalization" in result.output
    assert (tmp_path / "bench.png").stat().st_size > 1000


@pytest.mark.slow
def test_bench_takes_every_dtype_its_runtime_has(model_directory: Path, tmp_path: Path) -> None:
    sides = ("--dense", model_directory, "--small", model_directory, "--json", tmp_path / "bench.json")
    kinds = ("--dtype", "int8", "--dtype", "bfloat16", "--runtime", "onnx", "--runtime", "eager")
    result = run(
        "bench", *sides, *kinds, "--dense-dtype", "float32", "--shape", "2x8", "--repeats", "7", "--threads", "1"
    )
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "bench.json").read_text())["details"]["comparisons"]
    assert [(row["runtime"], row["dtype"]) for row in rows] == [
        ("onnx", "float32 → int8"),
        ("eager", "float32 → bfloat16"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "8"], "--shape 8: write batch x length"),
        (["--runtime", "tensorrt"], "choose onnx, eager, compiled"),
        (["--dtype", "bfloat16"], "onnx on cpu have float32, int8"),
        (["--runtime", "eager", "--profile"], "add --runtime onnx"),
        ([], "missing.onnx does not exist"),
    ],
)
def test_bench_refuses_what_it_cannot_time(model_directory: Path, options: list[str], message: str) -> None:
    result = run("bench", "--dense", "missing.onnx", "--small", model_directory, *options)
    assert result.exit_code == 1
    assert message in result.output.replace("\n", " ")


@pytest.mark.parametrize("content", ["nothing", "text", "half"])
def test_files_that_are_no_onnx_are_refused_by_name(model_directory: Path, tmp_path: Path, content: str) -> None:
    file, whole = tmp_path / "bad.onnx", onnx.ModelProto()
    nodes = [onnx.helper.make_node("Identity", [a], [b]) for a, b in (("x", "y"), ("y", "z"))]
    whole.CopyFrom(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [])))
    data = whole.SerializeToString()
    file.write_bytes({"nothing": b"", "text": b"garbage\n", "half": data[: len(data) // 2]}[content])
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\na,0\nb,1\n")
    for command in (
        ["bench", "--dense", file, "--small", file],
        ["eval", "--model", file, "--tokenizer", model_directory, "--data", texts],
    ):
        result = run(*command)
        assert result.exit_code == 1
        assert "bad.onnx is no ONNX file" in result.output.replace("\n", " ")
