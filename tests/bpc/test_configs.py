"""Configs, tokenizers and classes of local directories; code that lies there runs only where that is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import transformers

from bpc.configs import ConfigError, model_class, read_config, read_tokenizer

CODE = """
from pathlib import Path
from torch import nn
from transformers import PretrainedConfig
Path(__file__).with_name("ran").touch()
class Mine(PretrainedConfig):
    model_type = "mine"
class MyModel(nn.Module):
    pass
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose config and class come with it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "mine.py").write_text(CODE)
    names = {"AutoConfig": "mine.Mine", "AutoModel": "mine.MyModel"}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": names, "architectures": ["MyModel"]})
    )
    return folder


def test_code_of_a_directory_runs_only_if_asked(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: it brings Python code .*pass trust_remote_code=True, or --t"):
        read_config(directory)
    assert not list(tmp_path.rglob("ran"))
    config = read_config(directory, trust_remote_code=True)
    assert type(config).__name__ == "Mine"
    assert list(tmp_path.rglob("ran"))
    assert model_class(config, directory) is None
    found = model_class(config, directory, trust_remote_code=True)
    assert found is not None
    assert found.__name__ == "MyModel"


@pytest.mark.parametrize("names", [None, [], "BertModel", [3], ["logging"], ["pipeline"], ["NoSuchModel"]])
def test_what_names_no_model_is_none(names: object, tmp_path: Path) -> None:
    config = transformers.BertConfig()
    config.architectures = names
    assert model_class(config, tmp_path) is None
    config.architectures = ["BertModel"]
    assert model_class(config, tmp_path) is transformers.BertModel


@pytest.mark.parametrize("text", ["[]", "3", '{"model_type": []}', '{"model_type": "bert", "hidden_size": {}}', "\xff"])
def test_damage_is_one_kind_of_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json: "):
        read_config(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(ConfigError, match="the tokenizer: "):
        read_tokenizer(tmp_path)
