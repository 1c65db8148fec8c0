"""The commands end to end on a tiny model: files, messages and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import onnxruntime
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM
from typer.testing import CliRunner

import bpc.train
from bpc.cli import app, export
from bpc.cli.data import Columns, read_table
from bpc.dense import load
from bpc.emit.onnx import Dtype
from bpc.emit.recipe import Target
from bpc.scores.files import multiply_masks, save_masks


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def prune(model: Path, data: Path, out: Path, spec: Path, *more: Any) -> Result:
    options = {"--model": model, "--data": data, "--out": out, "--spec": spec, "--epochs": 2, "--batch-size": 8}
    return run("prune", *(part for option in options.items() for part in option), *more)


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


@pytest.mark.parametrize("command", [[], ["prune"], ["inspect"], ["shrink"], ["verify"], ["export"], ["bench"]])
def test_every_command_has_help(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_imports_nothing_heavy() -> None:
    code = "import bpc.cli, sys; assert 'torch' not in sys.modules, 'torch'"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "bpc", "frobnicate"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "frobnicate" in done.stderr


def test_inspect_shows_what_a_spec_matches(model_directory: Path) -> None:
    result = run("inspect", "--model", model_directory, "--spec", "struct")
    assert result.exit_code == 0
    assert "12 of 14 linears masked" in result.output
    assert "8 x 32" in result.output


def test_inspect_leaves_no_column_out_on_a_narrow_terminal(
    model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpc.terminal.console.WIDTH_WITHOUT_TERMINAL", 60)
    result = run("inspect", "--model", model_directory, "--spec", "struct", "--every-weight")
    weight = "bert.encoder.layer.1.attention.self.value.weight"
    (line,) = [line for line in result.output.splitlines() if weight in line]
    assert line.split()[-3:] == ["masked", "attention", "20"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spec", "hybird"], "'hybird' is neither a preset nor"),
        (["--spec", "missing.toml"], "cannot read the spec missing.toml"),
    ],
)
def test_a_bad_spec_is_one_line_and_exit_code_1(model_directory: Path, arguments: list[str], message: str) -> None:
    result = run("inspect", "--model", model_directory, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_missing_model_says_what_a_model_directory_is(tmp_path: Path) -> None:
    assert "is no directory" in run("inspect", "--model", tmp_path / "nope").output
    result = run("inspect", "--model", tmp_path)
    assert result.exit_code == 1
    assert "has no config.json" in result.output


def test_shrink_writes_a_model_that_computes_the_same(model_directory: Path, tmp_path: Path) -> None:
    masks = heads_masks(model_directory)
    save_masks(masks, tmp_path / "masks.safetensors")
    result = run(
        "shrink", "--model", model_directory, "--masks", tmp_path / "masks.safetensors", "--out", tmp_path / "s"
    )
    assert result.exit_code == 0, result.output
    masked = AutoModelForSequenceClassification.from_pretrained(model_directory)
    multiply_masks(masked, masks)
    small: Any = load(tmp_path / "s").module
    inputs = {"input_ids": torch.randint(4, 16, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    torch.testing.assert_close(small(**inputs).logits, masked.eval()(**inputs).logits, rtol=1e-5, atol=1e-6)
    layer = small.bert.encoder.layer[0]
    assert layer.intermediate.dense.out_features == 34
    assert layer.attention.self.value.out_features == 24


def test_inspect_with_masks_says_what_goes(model_directory: Path, tmp_path: Path) -> None:
    save_masks(heads_masks(model_directory), tmp_path / "masks.safetensors")
    out = tmp_path / "explained.json"
    result = run("inspect", "--model", model_directory, "--masks", tmp_path / "masks.safetensors", "--json", out)
    assert result.exit_code == 0
    assert "heads: 3 live, 1 dead" in result.output
    assert "dims 10-39: dead" in result.output
    states = {
        block["name"]: [unit["state"] for unit in block["units"]] for block in json.loads(out.read_text())["blocks"]
    }
    assert states["attention.0"] == ["live", "dead", "live", "live"]
    assert set(states["ffn.1"]) == {"live"}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"nope.weight": torch.ones(2, dtype=torch.bool)}, "mask for 'nope.weight'"),
        ({"classifier.weight": torch.ones(3, 3, dtype=torch.bool)}, "mask for 'classifier.weight' has shape (3, 3)"),
        ({"classifier.weight": torch.full((2, 32), 0.5)}, "but a mask file holds bool tensors"),
    ],
)
def test_masks_that_do_not_fit_leave_nothing_behind(
    model_directory: Path, tmp_path: Path, masks: dict[str, torch.Tensor], message: str
) -> None:
    save_file(masks, tmp_path / "masks.safetensors")
    result = run(
        "shrink", "--model", model_directory, "--masks", tmp_path / "masks.safetensors", "--out", tmp_path / "s"
    )
    assert result.exit_code == 1
    assert message in result.output.replace("\n", "")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["masks.pt", "masks.safetensors"])
def test_a_pickle_is_not_read_as_masks(model_directory: Path, tmp_path: Path, name: str) -> None:
    torch.save({"classifier.weight": print}, tmp_path / name)
    result = run("shrink", "--model", model_directory, "--masks", tmp_path / name, "--out", tmp_path / "s")
    assert result.exit_code == 1
    assert "is not unpickled" in result.output.replace("\n", " ")


def test_export_offers_what_there_is() -> None:
    hints = get_type_hints(export)  # the module's own names: importing bpc.emit for --help would take seconds
    assert (get_args(hints["target"]), get_args(hints["dtype"])) == (get_args(Target), get_args(Dtype))
    result = run("export", "--model", "m", "--out", "m.onnx", "--target", "gpu")
    assert result.exit_code == 2
    assert "'gpu'" in result.output


@pytest.mark.slow
def test_export_writes_an_onnx_file_with_dynamic_axes(model_directory: Path, tmp_path: Path) -> None:
    result = run("export", "--model", model_directory, "--out", tmp_path / "model.onnx")
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    ids = torch.randint(4, 16, (5, 11))
    feeds = {i.name: (torch.ones_like(ids) if "mask" in i.name else ids).numpy() for i in session.get_inputs()}
    model = AutoModelForSequenceClassification.from_pretrained(model_directory).eval()
    expected = model(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(torch.from_numpy(session.run(None, feeds)[0]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bench_times_directories_and_writes_json(model_directory: Path, tmp_path: Path) -> None:
    sides = ("--dense", model_directory, "--small", model_directory, "--json", tmp_path / "bench.json")
    extra = ("--profile", "--plot", tmp_path / "bench.png")
    result = run("bench", *sides, "--shape", "2x8", "--shape", "1x5", "--repeats", "7", "--threads", "1", *extra)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["batch"], row["length"]) for row in rows] == [(2, 8), (1, 5)]
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
    rows = json.loads((tmp_path / "bench.json").read_text())
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


def test_prune_stops_on_ctrl_c_and_resumes_to_the_same_masks(
    model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prune(model_directory, texts, tmp_path / "whole", spec_file, "--eval", texts)
    assert whole.exit_code == 0, whole.output
    assert "accuracy" in whole.output
    step = bpc.train.Trainer.training_step
    calls = []

    def interrupted_at_step_5(self: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments, **options)

    monkeypatch.setattr(bpc.train.Trainer, "training_step", interrupted_at_step_5)
    stopped = prune(model_directory, texts, tmp_path / "cut", spec_file)
    assert stopped.exit_code == 130
    assert "stopped at step 5" in stopped.output
    again = prune(model_directory, texts, tmp_path / "cut", spec_file)
    assert again.exit_code == 1
    assert "add --resume" in again.output.replace("\n", " ")
    resumed = prune(model_directory, texts, tmp_path / "cut", spec_file, "--resume")
    assert resumed.exit_code == 0, resumed.output
    masks, expected = (load_file(tmp_path / name / "masks.safetensors") for name in ("cut", "whole"))
    assert masks.keys() == expected.keys()
    assert any(not mask.all() for mask in expected.values())
    assert all(torch.equal(masks[name], expected[name]) for name in masks)
    small = load(tmp_path / "whole" / "small").module
    assert sum(p.numel() for p in small.parameters()) < sum(
        p.numel()
        for p in AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole" / "masked").parameters()
    )
    assert json.loads((tmp_path / "whole" / "spec.json").read_text())["name"] == "struct (changed)"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "txt,label\na,b\n", "has no column 'text'; its columns: txt, label"),
        ("d.csv", "text,label\n", "has no rows"),
        ("d.csv", "text,label\n,x\n", "no row has all of text, label"),
        ("d.jsonl", '{"text": "a", "label": 1}\n{oops\n', "line 2 is not JSON"),
        ("d.xlsx", "", "data files are .csv, .tsv or .jsonl"),
        ("d.csv", f"text,label\n{'a' * 140_000},x\n", "cannot be read as CSV: field larger than field limit"),
        ("d.csv", "text,label\na,x\nb,x\n", "every row has the label 'x'; a classifier needs two or more"),
    ],
)
def test_bad_data_is_explained(
    model_directory: Path, spec_file: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    result = prune(model_directory, tmp_path / name, tmp_path / "out", spec_file)
    assert result.exit_code == 1
    assert message in result.output.replace("\n", "")


def test_data_in_another_encoding_is_explained(model_directory: Path, spec_file: Path, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    result = prune(model_directory, tmp_path / "d.csv", tmp_path / "out", spec_file)
    assert result.exit_code == 1
    assert "is not UTF-8 (byte 14" in result.output.replace("\n", "")


def test_blank_lines_of_json_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": 1}\n\n{"text": "b", "label": 0}\n\n')
    assert len(read_table(tmp_path / "d.jsonl", Columns())) == 2


def test_texts_longer_than_the_model_are_refused_at_once(
    model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path
) -> None:
    result = prune(model_directory, texts, tmp_path / "out", spec_file, "--max-length", 513)
    assert result.exit_code == 1
    assert "--max-length 513: the model has positions for 512 tokens" in result.output.replace("\n", "")


def test_masks_of_tied_weights_are_given_under_each_name(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = BertForMaskedLM(config)
    model.save_pretrained(tmp_path / "model")
    mask = torch.ones(20, 16, dtype=torch.bool)
    mask[:, 3] = False
    names = ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    save_masks(dict.fromkeys(names, mask), tmp_path / "masks.safetensors")
    out = tmp_path / "small"
    result = run("shrink", "--model", tmp_path / "model", "--masks", tmp_path / "masks.safetensors", "--out", out)
    assert result.exit_code == 0, result.output
    assert (load(out).module.get_parameter(names[0])[:, 3] == 0).all()


def test_a_model_is_not_overwritten_by_its_small_one(model_directory: Path) -> None:
    before = (model_directory / "model.safetensors").read_bytes()
    result = run("shrink", "--model", model_directory, "--out", model_directory)
    assert result.exit_code == 1
    assert "is the model itself" in result.output.replace("\n", "")
    assert (model_directory / "model.safetensors").read_bytes() == before


def test_filling_uses_the_zeros_that_are_left(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    spec = tmp_path / "filled.json"
    rules = [{"roles": "attention.*", "block": [4, 4]}, {"roles": "ffn.*", "block": [1, "in_features"], "paired": True}]
    spec.write_text(json.dumps({"rules": rules, "fill": True, "floor": 0.3, "scores": {"learning_rate": 0.5}}))
    result = prune(model_directory, texts, tmp_path / "out", spec, "--fill-epochs", "0.25")
    assert result.exit_code == 0, result.output
    small = dict(load(tmp_path / "out" / "small").module.named_parameters())
    weights = [w for name, w in small.items() if name.endswith("value.weight") and w.numel() > 64]
    assert weights
    assert not any((weight == 0).any() for weight in weights)
    masks = load_file(tmp_path / "out" / "masks.safetensors")
    assert any(not mask.all() and mask.any() for name, mask in masks.items() if name.endswith("value.weight"))


def test_resume_without_a_checkpoint_is_refused(
    model_directory: Path, texts: Path, spec_file: Path, tmp_path: Path
) -> None:
    result = prune(model_directory, texts, tmp_path / "out", spec_file, "--resume")
    assert result.exit_code == 1
    assert "holds no checkpoint" in result.output.replace("\n", "")
