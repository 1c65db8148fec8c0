"""Small models by transformers' own doors, in this process and in a fresh one."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import bpc
import passes
from bpc.dense import DenseModel

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
ENCODER = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}


def _spread(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def _zero(model: nn.Module, **rows: slice) -> nn.Module:
    """Zero output rows of named layers, biases as well."""
    with torch.no_grad():
        for name, gone in rows.items():
            layer: Any = model.get_submodule(name)
            layer.weight[gone] = 0
            if layer.bias is not None:
                layer.bias[gone] = 0
    return model


def _bert() -> tuple[nn.Module, dict[str, Any]]:
    model = _spread(transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=60, **ENCODER)))
    layer = "bert.encoder.layer."
    _zero(model, **{layer + "0.attention.self.value": slice(0, 16), layer + "1.attention.self.value": slice(8, 16)})
    _zero(model, **{layer + "0.intermediate.dense": slice(0, 30), "bert.pooler.dense": slice(0, 5)})
    return model, TEXT


def _distilbert() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.DistilBertConfig(vocab_size=60, dim=32, n_heads=4, hidden_dim=48, n_layers=2)
    model = _spread(transformers.DistilBertForMaskedLM(config))
    layer = "distilbert.transformer.layer."
    return _zero(model, **{layer + "0.attention.v_lin": slice(0, 8), layer + "1.ffn.lin1": slice(0, 20)}), TEXT


def _vit() -> tuple[nn.Module, dict[str, Any]]:
    model = _spread(
        transformers.ViTForImageClassification(transformers.ViTConfig(image_size=8, patch_size=4, **ENCODER))
    )
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    value = next(name for name in names if name.rpartition(".")[2] in ("value", "v_proj"))
    first = next(name for name in names if model.get_submodule(name).out_features == 48)
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return _zero(model, **{value: slice(0, 16), first: slice(0, 20)}), {"pixel_values": pixels}


def _bart() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.BartConfig(
        vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=32,
    )  # fmt: skip
    model = _spread(transformers.BartForConditionalGeneration(config))
    _zero(model, **{f"model.encoder.layers.{i}.self_attn.v_proj": slice(0, 8) for i in range(2)})
    _zero(model, **{"model.decoder.layers.0.fc1": slice(0, 20), "model.encoder.layers.1.fc1": slice(0, 7)})
    return model, {**TEXT, "decoder_input_ids": IDS, "use_cache": False}


def _llama() -> tuple[nn.Module, dict[str, Any]]:
    config = transformers.LlamaConfig(
        vocab_size=60, num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True, **ENCODER
    )
    model = _spread(transformers.LlamaForCausalLM(config))
    layer = "model.layers."
    _zero(model, **{layer + "0.self_attn.v_proj": slice(0, 8), layer + "0.mlp.up_proj": slice(0, 20)})
    return _zero(model, **{layer + "1.mlp.up_proj": slice(0, 7)}), {**TEXT, "use_cache": False}


FAMILIES: dict[str, tuple[Callable[[], tuple[nn.Module, dict[str, Any]]], str]] = {
    "bert": (_bert, "AutoModelForSequenceClassification"),
    "distilbert": (_distilbert, "AutoModelForMaskedLM"),
    "vit": (_vit, "AutoModelForImageClassification"),
    "bart": (_bart, "AutoModelForSeq2SeqLM"),
    "llama": (_llama, "AutoModelForCausalLM"),
}

FRESH = """
    import json, sys, torch, transformers, bpc
    from safetensors.torch import load_file, save_file
    out = {}
    for family, door in json.loads(sys.argv[1]).items():
        inputs = {k: v if v.numel() > 1 else bool(v) for k, v in load_file(f"{family}.safetensors").items()}
        for kind in ("saved", "again"):
            model = getattr(transformers, door).from_pretrained(f"{family}/{kind}")
            with torch.no_grad():
                out[f"{family}/{kind}"] = model(**inputs).logits
    save_file(out, "out.safetensors")
"""


def _run(code: str, directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, tuple[nn.Module, dict[str, Any], DenseModel]]]:
    """Every family's small model as bpc saves it, and as its own module does."""
    root, found = tmp_path_factory.mktemp("families"), {}
    for family, (make, _) in FAMILIES.items():
        model, inputs = make()
        dense = DenseModel.from_shrink(passes.shrink(passes.trace(model, inputs)), model)
        dense.save_pretrained(root / family / "saved")
        dense.module.save_pretrained(root / family / "again")
        found[family] = (model, inputs, dense)
    return root, found


@pytest.fixture(scope="module")
def fresh(made: Any) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file, save_file

    root, found = made
    for family, (_, inputs, _) in found.items():
        save_file({k: torch.as_tensor(v).clone() for k, v in inputs.items()}, root / f"{family}.safetensors")
    done = _run(FRESH, root, json.dumps({family: door for family, (_, door) in FAMILIES.items()}))
    assert done.returncode == 0, done.stderr
    assert "newly initialized" not in done.stderr
    return load_file(root / "out.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["saved", "again"])
def test_a_fresh_process_loads_the_masked_models_outputs(made: Any, fresh: Any, family: str, kind: str) -> None:
    model, inputs, dense = made[1][family]
    assert sum(p.numel() for p in dense.module.parameters()) < sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(fresh[f"{family}/{kind}"], model(**inputs).logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(fresh[f"{family}/{kind}"], dense.module(**inputs).logits)


@pytest.fixture
def bert(made: Any) -> tuple[Path, nn.Module, DenseModel]:
    model, _, dense = made[1]["bert"]
    return made[0] / "bert" / "saved", model, dense


def test_the_loaded_model_is_a_plain_one(bert: Any, tmp_path: Path) -> None:
    directory, model, _ = bert
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(directory)
    assert not any(hasattr(loaded, name) for name in ("hf_quantizer", "quantization_method", "is_quantized"))
    assert not hasattr(loaded.config, "_is_quantized")
    loaded.save_pretrained(tmp_path)
    half = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.half().float().dtype is torch.float32
    with torch.no_grad():
        torch.testing.assert_close(half(**TEXT).logits, model(**TEXT).logits, atol=0.3, rtol=0.1)


def test_the_base_model_and_another_head_take_the_sizes_they_share(bert: Any) -> None:
    directory, model, _ = bert
    with torch.no_grad():
        base = transformers.AutoModel.from_pretrained(directory)
        expected = model.bert(**TEXT)
        torch.testing.assert_close(base(**TEXT).last_hidden_state, expected.last_hidden_state, atol=1e-4, rtol=1e-4)
        tags = transformers.AutoModelForTokenClassification.from_pretrained(directory)
        hidden = tags.bert(**TEXT).last_hidden_state
        torch.testing.assert_close(hidden, expected.last_hidden_state, atol=1e-4, rtol=1e-4)


def test_a_new_head_keeps_the_dims_that_were_cut(bert: Any) -> None:
    directory, _, dense = bert
    new = transformers.AutoModelForSequenceClassification.from_pretrained(
        directory, num_labels=5, ignore_mismatched_sizes=True
    )
    assert new.classifier.weight.shape == (5, dense.module.classifier.in_features)
    assert new(**TEXT).logits.shape == (2, 5)


def test_weights_of_other_sizes_are_refused_even_if_mismatches_are_ignored(bert: Any, tmp_path: Path) -> None:
    directory, model, _ = bert
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    door = transformers.AutoModelForSequenceClassification
    with pytest.raises(ValueError, match=r"does not belong to its config\.json.*where dim . has to be"):
        door.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    with pytest.raises(ValueError, match=r"made from 48 in dim 0 .* the config makes \(64"):
        door.from_pretrained(directory, intermediate_size=64, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("damage", [{"format": 9}, {"shapes": {"x": {"0": [1]}}}, {"unknown": 1}])
def test_a_note_that_cannot_be_read_is_refused(bert: Any, tmp_path: Path, damage: dict[str, Any]) -> None:
    bert[2].module.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] |= damage
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json: quantization_config\.\w+.*a newer bpc wrote it, or"):
        transformers.AutoModel.from_pretrained(tmp_path)


def test_without_bpc_loading_fails(made: Any) -> None:
    code = 'import transformers; transformers.AutoModelForSequenceClassification.from_pretrained("bert/saved")'
    done = _run(code, made[0])
    assert done.returncode != 0
    assert "Unknown quantization type, got bpc" in done.stderr


def test_a_loaded_model_shrinks_and_saves_again(bert: Any, tmp_path: Path) -> None:
    """From what config.json says alone: no bpc.json is left."""
    bert[2].module.save_pretrained(tmp_path / "plain")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain")
    _zero(loaded, **{"bert.encoder.layer.0.intermediate.dense": slice(0, 6)})
    dense = DenseModel.from_shrink(passes.shrink(passes.trace(loaded, TEXT)), loaded)
    dense.save_pretrained(tmp_path / "twice")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "twice")
    assert again.bert.encoder.layer[0].intermediate.dense.out_features == 12
    with torch.no_grad():
        torch.testing.assert_close(again(**TEXT).logits, loaded(**TEXT).logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(bpc.load(tmp_path / "twice").module(**TEXT).logits, again(**TEXT).logits)


def test_a_part_of_a_model_that_names_its_layers_otherwise_is_refused(tmp_path: Path) -> None:
    tower = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 1}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 60, "max_position_embeddings": 20},
        vision_config={**tower, "image_size": 8, "patch_size": 4},
        projection_dim=16,
    )
    model: Any = _spread(transformers.CLIPModel(config))
    _zero(model, **{"text_model.encoder.layers.0.mlp.fc1": slice(0, 20)})
    _zero(model, **{"vision_model.encoder.layers.0.mlp.fc1": slice(0, 10)})
    inputs = {**TEXT, "pixel_values": torch.randn(2, 3, 8, 8)}
    dense = DenseModel.from_shrink(passes.shrink(passes.trace(model, inputs)), model)
    dense.module.save_pretrained(tmp_path)
    with torch.no_grad():
        whole = transformers.AutoModel.from_pretrained(tmp_path)
        torch.testing.assert_close(whole(**inputs).logits_per_text, model(**inputs).logits_per_text)
    with pytest.raises(ValueError, match=r"is in CLIPTextModel: load it as the class it was saved from"):
        transformers.CLIPTextModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
