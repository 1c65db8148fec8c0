"""`bpc prune` and `bpc eval` for every task, on tiny models of several architectures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from bpc.cli.tasks import column_names
from bpc.results import Result, read_result
from bpc.terminal.errors import CommandError
from tests.bpc.cli.commands import prune, run

RULES = [
    {"roles": "attention.*", "block": [8, "in_features"]},
    {"roles": "ffn.*", "block": [1, "in_features"], "paired": True},
]
SPEC = {"rules": RULES, "floor": 0.3, "threshold": {"final": 0.99}}  # a few steps suffice
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS = {"vocab_size": 16, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SPEC))
    return path


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 8))
    return path


def bert(name: str) -> Any:
    config = transformers.BertConfig(vocab_size=16, **SMALL)
    return getattr(transformers, f"BertFor{name}")(config)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=16, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(num_key_value_heads=2, **SMALL, **TOKENS))


def vit() -> Any:
    return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=16, patch_size=8, **SMALL))


def pictures(folder: Path) -> Path:
    for name, colour in (("red", "red"), ("blue", "blue")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (16, 16), colour).save(folder / name / f"{i}.png")
    return folder


CASES: dict[str, tuple[Callable[[], Any], list[dict[str, Any]], list[str], str]] = {
    "regression": (
        lambda: bert("SequenceClassification"),
        [{"text": "good film", "label": 0.9}, {"text": "bad film", "label": 0.1}],
        [],
        "Pearson's r",
    ),
    "token-classification": (
        lambda: bert("TokenClassification"),
        [{"words": ["good", "film"], "ner": ["O", "B-X"]}, {"words": ["bad"], "ner": ["O"]}],
        ["--columns", "tokens=words", "--columns", "tags=ner"],
        "entity F1",
    ),
    "question-answering": (
        lambda: bert("QuestionAnswering"),
        [{"question": "good", "context": "the plot was bad", "answers": {"text": ["bad"], "answer_start": [13]}}],
        ["--max-length", "16"],
        "exact match",
    ),
    "seq2seq": (t5, [{"source": "the film was good", "target": "good film"}], [], "perplexity"),
    "causal-lm": (llama, [{"text": "the film was good and the plot was bad"}], ["--max-length", "8"], "perplexity"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_task_is_pruned_and_measured(name: str, model_directory: Path, spec_file: Path, tmp_path: Path) -> None:
    make, rows, options, metric = CASES[name]
    torch.manual_seed(0)
    transformers.AutoTokenizer.from_pretrained(model_directory).save_pretrained(tmp_path / "model")
    make().save_pretrained(tmp_path / "model")
    data = lines(tmp_path / "data.jsonl", rows)
    out = tmp_path / "out"
    result = prune(tmp_path / "model", data, out, spec_file, "--eval", data, *options)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{name}: {8 * len(rows)} examples")
    assert metric in result.output
    assert any(not mask.all() for mask in load_file(out / "masks.safetensors").values())
    written = {figure.name: figure for figure in read_result(out / "result.json").figures}
    sizes = written["parameters"]
    assert sizes.small is not None
    assert sizes.original is not None
    assert sizes.small.value < sizes.original.value
    again = run("eval", "--model", out / "small", "--data", data, "--json", "-", *options)
    assert again.exit_code == 0, again.output
    said = [f for f in Result.model_validate_json(again.output).figures if "same answer" not in f.name]
    assert metric in [figure.name for figure in said]
    for figure in said:
        expected = written[figure.name]
        assert figure.sample == expected.sample
        assert figure.small is not None
        assert expected.small is not None
        assert figure.small.value == pytest.approx(expected.small.value, rel=1e-4, abs=1e-6)


def test_images_come_in_a_folder_a_class(spec_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit().save_pretrained(tmp_path / "model")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    folder = pictures(tmp_path / "pictures")
    result = prune(tmp_path / "model", folder, tmp_path / "out", spec_file, "--eval", folder, "--dense-epochs", 2)
    assert result.exit_code == 0, result.output
    assert "image-classification: 16 examples, 16 held out" in result.output
    assert "accuracy, same answer to all" in result.output
    assert (tmp_path / "out" / "small" / "preprocessor_config.json").exists()
    again = run("eval", "--model", tmp_path / "out" / "original", "--data", folder)
    assert "accuracy" in again.output


def test_a_file_is_measured_as_the_model_it_was_made_of(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    assert run("export", "--model", model_directory, "--out", file).exit_code == 0
    told = [
        run("eval", "--model", model, "--data", texts, "--json", "-", *more).output
        for model, more in ((model_directory, []), (file, ["--tokenizer", model_directory]))
    ]
    results = [Result.model_validate_json(text) for text in told]
    assert results[0].figures == results[1].figures
    alone = run("eval", "--model", file, "--data", texts)
    assert alone.exit_code == 1
    assert "give the directory of the model" in alone.output.replace("\n", " ")


def test_what_does_not_fit_is_said(model_directory: Path, texts: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [{"a": "x", "b": "y"}])
    for arguments, message in (
        ((data,), "has the columns a, b, which fit no task"),
        ((data, "--task", "clasification"), "--task clasification: tasks are classification, regression"),
        ((data, "--columns", "text"), "--columns text: give role=COLUMN"),
        ((data, "--columns", "text=c"), "has no column 'c'; its columns: a, b"),
        ((data, "--columns", "text=a", "--columns", "label=b"), "knows the classes LABEL_0, LABEL_1, the data have y"),
        ((texts, "--task", "token-classification"), "has no column 'tokens' with the list of words"),
    ):
        result = run("eval", "--model", model_directory, "--data", *arguments)
        assert result.exit_code == 1, result.output
        assert message in result.output.replace("\n", " ")


def test_columns_are_named_by_role() -> None:
    assert column_names(["text=a", "label=b"], text="c", pair=None) == {"text": "a", "label": "b"}
    with pytest.raises(CommandError, match="give role=COLUMN"):
        column_names(["=b"])
