"""The Python in docs/trim-vocabulary.md runs, and the options it lists exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from bpc.cli import app
from tests.bpc.vocabulary.models_of import bert
from tests.bpc.vocabulary.tokenizers_of import corpus, tokenizer

TEXT = (Path(__file__).parents[3] / "docs" / "trim-vocabulary.md").read_text()


def test_the_python_runs() -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    full = tokenizer("wordpiece")
    names: dict[str, Any] = {
        "model": bert(len(full)),
        "tokenizer": full,
        "texts": corpus(1, 20),
        "heldout": corpus(2, 9),
    }
    exec(snippet, names)
    assert names["report"].held_out.texts == 9
    assert len(names["tokenizer"]) == names["model"].config.vocab_size < len(full)


def test_the_options_exist() -> None:
    command: Any = typer.main.get_command(app)
    options = {name for option in command.commands["trim-vocab"].params for name in option.opts}
    named = set(re.findall(r"--[a-z][a-z-]+", TEXT))
    assert {"--keep-tokens", "--min-count"} < named <= options
