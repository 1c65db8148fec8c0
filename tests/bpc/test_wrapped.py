"""Models as training frameworks leave them: compiled as what they wrap, and left as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

import bpc


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    )


def fine_tuned(folder: Path) -> Any:
    """What most users bring: accelerate's autocast is around its forward."""
    model = bert()
    data = [{"input_ids": [1, 2, 3, i], "labels": i % 2} for i in range(8)]
    settings: dict[str, Any] = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    arguments = TrainingArguments(str(folder), max_steps=1, bf16=True, use_cpu=True, **settings)
    transformers.Trainer(model=model, args=arguments, train_dataset=data).train()
    assert "_original_forward" in model.__dict__
    return model


WRAPPED: dict[str, Callable[[Path], Any]] = {
    "Trainer(bf16=True)": fine_tuned,
    "DataParallel": lambda _: nn.DataParallel(bert()),
    "torch.compile": lambda _: torch.compile(bert()),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_model_inside_is_compiled_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    wrapped = WRAPPED[kind](tmp_path)
    before = dict(wrapped.__dict__)
    program = bpc.compile(wrapped, "struct")
    with torch.no_grad():
        for scores in program.score_parameters():
            scores[:3] = -10.0
    dense = program.shrink()
    dense.save_pretrained(tmp_path / "small")
    inputs = {"input_ids": torch.tensor([[1, 2, 3, 4]])}
    with torch.no_grad():
        expected = program.masked_model().eval()(**inputs).logits
        small = bpc.load(tmp_path / "small").module
        torch.testing.assert_close(small(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    assert small.bert.encoder.layer[0].intermediate.dense.out_features == 45  # type: ignore[union-attr]
    program.detach()
    assert {name: wrapped.__dict__.get(name) for name in before if "forward" in name} == {
        name: value for name, value in before.items() if "forward" in name
    }


def test_what_is_left_of_an_earlier_run_takes_no_part_in_a_later_one(tmp_path: Path) -> None:
    model = fine_tuned(tmp_path)
    left = model.__dict__["forward"]
    seen: list[torch.dtype] = []
    dense = model.bert.encoder.layer[0].intermediate.dense
    hook = dense.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    program = bpc.compile(model, "struct")
    seen.clear()
    settings: dict[str, Any] = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    data = [{"input_ids": [1, 2, 3, i], "labels": i % 2} for i in range(8)]
    bpc.Trainer(
        program=program, args=TrainingArguments(str(tmp_path), max_steps=1, **settings), train_dataset=data
    ).train()
    hook.remove()
    assert set(seen) == {torch.float32}
    assert model.__dict__["forward"] is left


def test_pruning_without_training_sees_it_as_well(tmp_path: Path) -> None:
    texts = [{"input_ids": torch.randint(1, 40, (4, 6))} for _ in range(4)]
    wrapped = nn.DataParallel(fine_tuned(tmp_path))
    dense = bpc.prune_once(wrapped, texts, bpc.Target(params=0.9), progress=False)
    assert isinstance(dense.module, BertForSequenceClassification)


def test_adapters_are_refused_by_name() -> None:
    class LoraLinear(nn.Linear):
        """Stands for peft's: told by its module."""

    LoraLinear.__module__ = "peft.tuners.lora.layer"
    model = bert()
    model.bert.encoder.layer[0].attention.self.query = LoraLinear(32, 32)
    with pytest.raises(ValueError, match=r"adapters of peft .* model\.merge_and_unload"):
        bpc.compile(model, "struct")
    with pytest.raises(ValueError, match=r"merge_and_unload"):
        bpc.prune_once(model, [{"input_ids": torch.ones(2, 4, dtype=torch.long)}], 1.5)


def test_weights_that_accelerate_offloaded_are_refused_by_name(tmp_path: Path) -> None:
    texts = [{"input_ids": torch.ones(2, 4, dtype=torch.long)}]
    for offloaded in (disk_offload(bert(), tmp_path, execution_device=torch.device("cpu")), cpu_offload(bert())):
        with pytest.raises(ValueError, match=r"weights that accelerate offloaded.*`bpc oneshot --stream`"):
            bpc.compile(offloaded, "struct")
        with pytest.raises(ValueError, match="accelerate offloaded"):
            bpc.prune_once(offloaded, texts, 1.5)


def test_a_model_that_accelerate_dispatched_whole_is_compiled() -> None:
    dispatched = dispatch_model(bert(), {"": "cpu"}, force_hooks=True)
    assert hasattr(dispatched, "_hf_hook")
    assert bpc.compile(dispatched, "struct").shrink().module.num_parameters() > 0
