"""Self-contained directories load in a process that has no bpc."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import passes
from bpc.dense import DenseModel, load
from bpc.hub import light_note
from bpc.hub.note import Note, NoteError
from bpc.hub.standalone import NAME, auto_classes
from tests.bpc import generators
from tests.bpc.hub.conftest import IDS

TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}

# Neither package is found, and neither is asked for: an import of one would end in an error.
WITHOUT = """
    import os, sys
    class Blocked:
        def find_spec(self, name, path, target=None):
            if name.partition(".")[0] in ("bpc", "passes"):
                raise ModuleNotFoundError(f"{name} is blocked")
    sys.meta_path.insert(0, Blocked())
    os.environ["HF_MODULES_CACHE"] = os.path.abspath("modules")
    import torch, transformers
    from safetensors.torch import save_file
    out, ids = {}, torch.arange(3, 17).reshape(2, 7)
    auto = transformers.AutoModelForSequenceClassification
    try:
        auto.from_pretrained("bert")
    except RuntimeError:  # sizes that nobody told it of
        pass
    else:
        raise AssertionError("loaded without the file")
    model = auto.from_pretrained("bert", trust_remote_code=True)
    assert not hasattr(model, "hf_quantizer")
    with torch.no_grad():
        out["bert"] = model(ids).logits
        out["base"] = transformers.AutoModel.from_pretrained("bert", trust_remote_code=True)(ids).last_hidden_state
        model.half().float().save_pretrained("again")
        out["again"] = auto.from_pretrained("again", trust_remote_code=True)(ids).logits
    try:
        auto.from_pretrained("wrong", trust_remote_code=True, ignore_mismatched_sizes=True)
    except ValueError as error:
        assert "does not belong to its config.json" in str(error), error
    else:
        raise AssertionError("made weights up")
    labels = transformers.pipeline("text-classification", "bert", trust_remote_code=True).model
    out["pipeline"] = labels(ids).logits.detach()
    for family, door in (("llama", transformers.AutoModelForCausalLM), ("gpt2", transformers.AutoModelForCausalLM)):
        model = door.from_pretrained(family, trust_remote_code=True)
        out[family] = model.generate(ids, max_new_tokens=5, do_sample=False)
    assert not any(name.partition(".")[0] in ("bpc", "passes") for name in sys.modules)
    save_file(out, "out.safetensors")
"""


def test_a_process_without_bpc_loads_what_the_small_models_compute(small: DenseModel, tmp_path: Path) -> None:
    ids = torch.arange(3, 17).reshape(2, 7)
    small.save_pretrained(tmp_path / "bert", standalone=True)
    _tokenizer().save_pretrained(tmp_path / "bert")
    module: Any = small.module
    expected = {}
    with torch.no_grad():
        expected["bert"] = expected["again"] = expected["pipeline"] = module(ids).logits
        expected["base"] = module.bert(ids).last_hidden_state
        for family in ("llama", "gpt2"):
            masked, dense = generators.small(family)
            dense.save_pretrained(tmp_path / family, standalone=True)
            expected[family] = masked.generate(ids, max_new_tokens=5, do_sample=False)
    _damaged(tmp_path / "bert", tmp_path / "wrong")
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = 1e-2 if name == "again" else 1e-5  # it was in half precision for a while
        torch.testing.assert_close(
            found[name], value, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")


def _damaged(source: Path, target: Path) -> None:
    """The same directory with one layer of another size."""
    target.mkdir()
    for name in ("config.json", NAME):
        (target / name).write_text((source / name).read_text())
    weights = load_file(source / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    weights[name] = torch.cat([weights[name], weights[name]])
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def test_with_bpc_it_is_like_any_other_directory_and_the_file_does_not_stick(small: DenseModel, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "alone", standalone=True)
    config = json.loads((tmp_path / "alone" / "config.json").read_text())
    name = "modeling_bpc.BertForSequenceClassification"
    assert config["auto_map"]["AutoModelForSequenceClassification"] == name
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "alone")
    assert type(model) is transformers.BertForSequenceClassification
    model.save_pretrained(tmp_path / "plain")
    loaded = load(tmp_path / "alone")
    loaded.save_pretrained(tmp_path / "alone")  # in the same place, without the file
    for place in ("plain", "alone"):
        assert "auto_map" not in json.loads((tmp_path / place / "config.json").read_text())
        assert not (tmp_path / place / NAME).exists()
    with torch.no_grad():
        assert loaded.module(**TEXT).logits.equal(small.module(**TEXT).logits)


def test_a_model_made_by_the_file_is_saved_with_it_or_without(
    small: DenseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    small.save_pretrained(tmp_path / "alone", standalone=True)
    door = transformers.AutoModelForSequenceClassification
    model = door.from_pretrained(tmp_path / "alone", trust_remote_code=True)
    assert type(model).__module__.endswith("modeling_bpc")
    model.save_pretrained(tmp_path / "copied")
    assert (tmp_path / "copied" / NAME).read_text() == (tmp_path / "alone" / NAME).read_text()
    dense = DenseModel.from_shrink(passes.shrink(passes.trace(model, TEXT)), model)
    for standalone in (True, False):
        place = tmp_path / f"again-{standalone}"
        dense.save_pretrained(place, standalone=standalone)
        assert (place / NAME).exists() == standalone
        assert ("auto_map" in json.loads((place / "config.json").read_text())) == standalone
        with torch.no_grad():
            logits = door.from_pretrained(place, trust_remote_code=standalone)(**TEXT).logits
            torch.testing.assert_close(logits, small.module(**TEXT).logits, atol=1e-5, rtol=1e-5)


def test_others_code_stays_named(small: DenseModel, tmp_path: Path) -> None:
    small.config.auto_map = {"AutoModel": "theirs.Model", "AutoModelForMaskedLM": "owner/name--modeling_bpc.Model"}
    try:
        small.save_pretrained(tmp_path)
    finally:
        del small.config.auto_map
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == {"AutoModel": "theirs.Model"}


class Own(transformers.BertForSequenceClassification):
    """A class of a user's."""


def test_a_class_that_is_not_transformers_is_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_attention_heads=2, intermediate_size=12, num_hidden_layers=1
    )
    model = Own(config).eval()
    model.bert.encoder.layer[0].intermediate.dense.weight.data[:4] = 0
    dense = DenseModel.from_shrink(passes.shrink(passes.trace(model, TEXT)), model)
    with pytest.raises(NoteError, match="Own is no class of transformers"):
        dense.save_pretrained(tmp_path / "own", standalone=True)
    assert not (tmp_path / "own").exists()
    dense.save_pretrained(tmp_path / "own")


def test_the_auto_classes_are_those_that_make_such_a_model(small: DenseModel) -> None:
    found = auto_classes(small.module)
    assert found["AutoModel"] == "BertModel"
    assert found["AutoModelForSequenceClassification"] == "BertForSequenceClassification"
    assert "AutoModelForImageClassification" not in found


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_note_reads_the_same_without_pydantic(family: str) -> None:
    _, dense = generators.small(family)
    plain = dense.config.quantization_config
    through_json = json.loads(json.dumps(plain))
    note, light = Note.read(through_json), light_note.Note.read(through_json)
    for name in Note.model_fields:
        assert getattr(light, name) == getattr(note, name) or name == "numbers"
    assert {k: {a: tuple(v) for a, v in d.items()} for k, d in light.numbers.items()} == note.numbers
    assert json.loads(json.dumps(light.plain())) == through_json


@pytest.mark.parametrize("damage", [{"format": 2}, {"unknown": 1}])
def test_a_note_of_a_newer_bpc_is_refused(damage: dict[str, int]) -> None:
    with pytest.raises(light_note.NoteError, match="a newer bpc wrote it"):
        light_note.Note.read({"quant_method": "bpc", "format": 1, **damage})
