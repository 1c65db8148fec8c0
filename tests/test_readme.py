"""The README's Python runs as it stands there, on a tiny model in the place of the user's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import bpc
from examples.tweets.data import encoder_directory

README = Path(__file__).parents[1] / "README.md"


def _snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the snippets take for granted: a model directory, a tokenizer, data."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=1, hidden_size=64, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained("my-finetuned-bert")
    tokenizer = AutoTokenizer.from_pretrained(encoder_directory())
    texts = ["good flight", "late again", "thank you", "lost my bag"]
    data = [{**tokenizer(text), "label": i % 2} for i, text in enumerate(texts)]
    return {"train": data, "heldout": data, "tokenizer": tokenizer}


def test_the_python_runs(names: dict[str, Any], tmp_path: Path) -> None:
    prune, shrink = _snippets("python")
    exec(compile(prune, "README.md", "exec"), names)
    assert (tmp_path / "small.onnx").exists()
    small = bpc.load(tmp_path / "small")
    batch = names["tokenizer"](["so far so good", "never again, thanks"], padding=True, return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected = names["dense"](**inputs).logits
    torch.testing.assert_close(small(**inputs).logits, expected, atol=1e-5, rtol=1e-5)

    names.update(ids=inputs["input_ids"], mask=inputs["attention_mask"], masks=names["program"].masks())
    names["model"] = names["program"].masked_model()
    exec(compile(shrink, "README.md", "exec"), names)
    assert names["result"].report.agreement.max_rel_diff <= 1e-5


def test_the_spec_loads(tmp_path: Path) -> None:
    (toml,) = _snippets("toml")
    path = tmp_path / "spec.toml"
    path.write_text(toml)
    spec = bpc.load_spec(path)
    assert spec.rules[1].paired
    assert spec.regularization.final_lambda == 10.0
