"""Directories of small models: what is written is read, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import passes
from bpc.dense import DenseModel
from bpc.directory import (
    CERTIFICATE_FILE,
    EXAMPLE_FILE,
    PLAN_FILE,
    LoadError,
    Saved,
    is_dense_directory,
    read_directory,
    write_directory,
)

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=16, num_attention_heads=2, intermediate_size=24, vocab_size=60, num_hidden_layers=1)
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.weight[:10] = 0
    graph = passes.trace(model, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    directory = tmp_path_factory.mktemp("small") / "model"
    DenseModel.from_shrink(passes.shrink(graph), model).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def saved(written: Path) -> Saved:
    return read_directory(written)


def test_what_is_read_is_written_again_as_it_was(saved: Saved, written: Path, tmp_path: Path) -> None:
    write_directory(tmp_path / "again", saved)
    assert is_dense_directory(tmp_path / "again")
    names = sorted(file.name for file in written.iterdir())
    assert names == sorted(file.name for file in (tmp_path / "again").iterdir())
    for name in (PLAN_FILE, CERTIFICATE_FILE, EXAMPLE_FILE, "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes(), name
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_save_that_fails_leaves_the_old_directory(saved: Saved, tmp_path: Path) -> None:
    listed = Saved(saved.view, saved.graph, ((), {"input_ids": IDS.tolist()}), saved.certificate)
    write_directory(tmp_path / "model", saved)
    before = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    with pytest.raises(TypeError, match=r"example input kwargs\.input_ids is a list; only tensors and plain values"):
        write_directory(tmp_path / "model", listed)
    assert {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_tensors_plain_values_and_tensors_given_twice_are_examples(saved: Saved, tmp_path: Path) -> None:
    example = ((IDS, None), {"again": IDS, "use_cache": False, "scale": 0.5})
    write_directory(tmp_path, Saved(saved.view, None, example, None))
    args, kwargs = read_directory(tmp_path).example
    assert torch.equal(args[0], IDS)
    assert torch.equal(kwargs.pop("again"), IDS)
    assert (args[1:], kwargs) == ((None,), {"use_cache": False, "scale": 0.5})


def test_directories_of_the_first_format_are_read(saved: Saved, tmp_path: Path) -> None:
    write_directory(tmp_path, saved)
    content = json.loads((tmp_path / PLAN_FILE).read_text())
    first = {"format": 1, "plan": content["plans"][0], "example": content["example"]}
    (tmp_path / PLAN_FILE).write_text(json.dumps(first))
    read = read_directory(tmp_path)
    assert (read.graph, read.view.granularity, read.view.refusal) == (None, "dims", "")
    assert read.view.module(input_ids=IDS).logits.equal(saved.view.module(input_ids=IDS).logits)


def test_the_certificate_of_an_earlier_model_does_not_stay(saved: Saved, tmp_path: Path) -> None:
    write_directory(tmp_path, saved)
    write_directory(tmp_path, Saved(saved.view, saved.graph, saved.example, None))
    assert read_directory(tmp_path).certificate is None


def test_a_model_that_bpc_did_not_write_is_not_replaced(saved: Saved, tmp_path: Path) -> None:
    saved.view.module.config.save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"holds a model that bpc did not write \(config.json without bpc.json\)"):
        write_directory(tmp_path, saved)
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("config.json", before)]


def test_files_of_earlier_saves_go_and_others_stay(saved: Saved, tmp_path: Path) -> None:
    write_directory(tmp_path, saved)
    written = {file.name for file in tmp_path.iterdir()}
    stale = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "generation_config.json")
    for name in (*stale, "tokenizer.json", "model-of-mine.safetensors"):
        (tmp_path / name).touch()
    write_directory(tmp_path, saved)
    assert {file.name for file in tmp_path.iterdir()} == written | {"tokenizer.json", "model-of-mine.safetensors"}


def test_damage_of_any_file_is_noticed(saved: Saved, tmp_path: Path) -> None:
    write_directory(tmp_path, saved)
    for name in ("model.safetensors", EXAMPLE_FILE):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(LoadError, match=f"{name} is not the file that bpc.json was written with"):
            read_directory(tmp_path)
        read_directory(tmp_path, check_hashes=False)
        (tmp_path / name).write_bytes(content)
    text = (tmp_path / PLAN_FILE).read_text()
    (tmp_path / PLAN_FILE).write_text(text.replace('"granularity": "dims"', '"granularity": "even"', 1))
    with pytest.raises(LoadError, match=r"bpc\.json is damaged: it was changed after it was written"):
        read_directory(tmp_path)
    (tmp_path / PLAN_FILE).write_text(text)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(LoadError, match=r"is no saved dense model: .*model\.safetensors is missing"):
        read_directory(tmp_path)


def test_an_example_with_numbers_that_are_none_is_not_saved(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"kwargs\.scale is inf; only finite numbers"):
        write_directory(tmp_path / "a", Saved(saved.view, None, ((), {"scale": float("inf")}), None))


def test_a_config_of_another_size_is_refused_before_it_is_built(saved: Saved, tmp_path: Path) -> None:
    write_directory(tmp_path, saved)
    config = tmp_path / "config.json"
    original = json.loads(config.read_text())
    for change, message in (
        ({"hidden_size": 10**12, "num_attention_heads": 10**12}, "do not fit config.json"),
        ({"vocab_size": 10**12}, r"word_embeddings\.weight is \(60, 16\) in the file; .* \(1000000000000, 16\)"),
        ({"num_hidden_layers": 10**9}, "config.json makes more than"),
        ({"architectures": ["logging"]}, "transformers has no architecture"),
    ):
        config.write_text(json.dumps({**original, **change}))
        with pytest.raises(LoadError, match=message):
            read_directory(tmp_path)


def test_a_module_of_its_own_is_not_run_unasked(saved: Saved, tmp_path: Path) -> None:
    write_directory(tmp_path, saved)
    (tmp_path / "mine.py").write_text("open('ran', 'w')")
    config = tmp_path / "config.json"
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **own}))
    with pytest.raises(LoadError, match=r"config\.json: it brings Python code .* pass trust_remote_code=True"):
        read_directory(tmp_path)


def test_an_unknown_architecture_is_named(saved: Saved, tmp_path: Path) -> None:
    write_directory(tmp_path, saved)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": ["FooModel"]}))
    with pytest.raises(LoadError, match=r"config\.json: transformers has no architecture \['FooModel'\]"):
        read_directory(tmp_path)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_directories_whose_config_has_no_note_are_built_by_their_plans(
    saved: Saved, tmp_path: Path, version: int
) -> None:
    write_directory(tmp_path, saved)
    config, content = json.loads((tmp_path / "config.json").read_text()), json.loads((tmp_path / PLAN_FILE).read_text())
    del config["quantization_config"]
    content |= {"format": version} | ({"plan": content["plans"][0]} if version == 1 else {})
    del content["digest"], content["files"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / PLAN_FILE).write_text(json.dumps(content))
    module = read_directory(tmp_path).view.module
    assert module(input_ids=IDS).logits.equal(saved.view.module(input_ids=IDS).logits)
    module.save_pretrained(tmp_path / "again")  # and has the note from now on
    again = BertForSequenceClassification.from_pretrained(tmp_path / "again")
    assert again(input_ids=IDS).logits.equal(module(input_ids=IDS).logits)


def test_a_small_model_that_transformers_saved_is_told_from_any_other(saved: Saved, tmp_path: Path) -> None:
    saved.view.module.save_pretrained(tmp_path / "small")  # type: ignore[operator]
    with pytest.raises(
        LoadError, match=r"bpc\.json is missing\. It holds a small model .* read it with from_pretrained"
    ):
        read_directory(tmp_path / "small")
    BertForSequenceClassification(
        BertConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    ).save_pretrained(tmp_path / "other")
    with pytest.raises(LoadError, match=r"bpc\.json is missing$"):
        read_directory(tmp_path / "other")


def test_adapters_are_not_saved_as_if_they_were_weights(saved: Saved, written: Path, tmp_path: Path) -> None:
    class LoraLinear(torch.nn.Linear):
        """Stands for peft's: told by its module."""

    LoraLinear.__module__ = "peft.tuners.lora.layer"
    adapted = read_directory(written)
    adapted.view.module.classifier = LoraLinear(16, 2)
    with pytest.raises(ValueError, match=r"adapters of peft .* model\.merge_and_unload"):
        write_directory(tmp_path / "model", adapted)
    assert not (tmp_path / "model").exists()
