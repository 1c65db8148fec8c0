"""Trainer, pipelines and generation with small models, from directories and in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)

import passes
from bpc.dense import DenseModel, load

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def _trainer(model: Any, directory: Path, **changes: Any) -> Trainer:
    data = [{"input_ids": row.tolist(), "labels": i % 2} for i, row in enumerate(IDS.repeat(8, 1))]
    settings: dict[str, Any] = {
        "output_dir": str(directory), "max_steps": 2, "save_steps": 1, "save_strategy": "steps", "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 4,
    }  # fmt: skip
    return Trainer(model=model, args=TrainingArguments(**settings | changes), train_dataset=data)


def test_trainers_checkpoints_load_and_train_on(small: DenseModel, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "small")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small")
    _trainer(model, tmp_path / "run").train()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "checkpoint-2")
    with torch.no_grad():
        assert loaded(**TEXT).logits.equal(model.eval()(**TEXT).logits)
    last = _trainer(loaded, tmp_path / "run", max_steps=3)
    last.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert last.state.global_step == 3
    best = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "checkpoint-3")
    with torch.no_grad():
        assert best(**TEXT).logits.equal(loaded.eval()(**TEXT).logits)


def test_pipelines_take_a_directory_and_a_module(small: DenseModel, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 4, "bad": 5}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    small.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    given = ["good bad good", "bad"]
    by_directory = pipeline("text-classification", str(tmp_path))(given, batch_size=2)
    in_memory = pipeline("text-classification", model=small.module, tokenizer=tokenizer)(given, batch_size=2)
    assert by_directory == in_memory
    of_dense = pipeline("text-classification", model=small, tokenizer=tokenizer)(given, batch_size=2)
    assert [(one["label"], pytest.approx(one["score"], abs=1e-5)) for one in of_dense] == [
        (one["label"], one["score"]) for one in in_memory
    ]
    scores = small.module(**tokenizer(given[0], return_tensors="pt")).logits.softmax(-1)
    assert by_directory[0]["score"] == pytest.approx(scores.max().item(), abs=1e-5)


def test_a_loaded_decoder_generates_the_masked_models_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        num_hidden_layers=2, max_position_embeddings=64,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight[:8] = 0
            layer.mlp.up_proj.weight[:20] = 0
        for parameter in model.parameters():
            parameter.mul_(3)
    dense = DenseModel.from_shrink(passes.shrink(passes.trace(model, {**TEXT, "use_cache": False})), model)
    dense.save_pretrained(tmp_path, max_shard_size="8KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.model.layers[0].self_attn.v_proj.out_features < 16
    for how in ({"do_sample": False}, {"num_beams": 3}):
        settings = {**TEXT, "max_new_tokens": 8, "pad_token_id": 0, **how}
        assert loaded.generate(**settings).equal(model.generate(**settings))
    half = load(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.module.parameters()} == {torch.bfloat16}
    assert half.certificate is None
    assert load(tmp_path).certificate is not None
    assert isinstance(load(tmp_path, model_class=LlamaForCausalLM).module, nn.Module)
