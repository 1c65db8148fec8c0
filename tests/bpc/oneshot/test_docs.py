"""The Python in docs/one-shot.md runs, and the options it names exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, TrainingArguments

import bpc
from bpc.oneshot import Target
from examples.tweets.data import encoder_directory
from tests.bpc.cli.commands import run
from tests.bpc.fake_times import by_size

TEXT = (Path(__file__).parents[3] / "docs" / "one-shot.md").read_text()


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    by_size(monkeypatch, tmp_path / "times")
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=4, hidden_size=96, num_attention_heads=12, intermediate_size=768)
    snippets = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    tokenizer = AutoTokenizer.from_pretrained(encoder_directory())
    texts = ["good flight", "late again", "thank you for the help", "lost my bag"]
    names: dict[str, Any] = {
        "model": BertForSequenceClassification(config).eval(),
        "tokenizer": tokenizer,
        "texts": texts,
        "args": TrainingArguments(
            str(tmp_path / "run"), max_steps=1, report_to="none", disable_tqdm=True, use_cpu=True
        ),
        "train": [{**tokenizer(text, padding="max_length", max_length=8), "labels": 0} for text in texts],
    }
    for snippet in snippets:
        exec(compile(snippet, "docs/one-shot.md", "exec"), names)
    assert bpc.load(tmp_path / "small").module
    first, second = (sum(p.numel() for p in names[name].module.parameters()) for name in ("first", "second"))
    assert second < first


def test_the_options_exist() -> None:
    shown = run("oneshot", "--help").output
    for option in re.findall(r"`(--[a-z-]+)`", TEXT):
        assert option in shown, option
    for call in re.findall(r"`(Target\(.*?\))`", TEXT):
        assert isinstance(eval(call, {"Target": Target}), Target)
