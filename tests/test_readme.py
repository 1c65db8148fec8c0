"""The README's Python runs as it stands there, on a tiny model in the place of the user's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import bpc
from bpc.scores.files import multiply_masks
from examples.tweets.data import encoder_directory
from passes.masks.binarize import expand_blocks

README = Path(__file__).parents[1] / "README.md"


def _snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the snippets take for granted: a model directory, a tokenizer, data."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=2, hidden_size=96, num_attention_heads=12, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained("my-finetuned-bert")
    tokenizer = AutoTokenizer.from_pretrained(encoder_directory())
    texts = ["good flight", "late again", "thank you", "lost my bag"]
    data = [{**tokenizer(text), "label": i % 2} for i, text in enumerate(texts)]
    return {"train": data, "heldout": data, "tokenizer": tokenizer}


def test_pruning_runs(names: dict[str, Any], tmp_path: Path) -> None:
    prune, _ = _snippets("python")
    exec(compile(prune, "README.md", "exec"), names)
    assert (tmp_path / "small.onnx").exists()
    small = bpc.load(tmp_path / "small")
    inputs = _batch(names)
    expected = names["dense"](**inputs).logits
    torch.testing.assert_close(small(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(names["small"](**inputs).logits, expected, atol=1e-5, rtol=1e-5)


def test_shrinking_runs_on_a_model_with_its_weights_and_block_masks(names: dict[str, Any]) -> None:
    """Blocks leave q and k another head size than v, which BERT's forward does not know: the module follows as far as
    it can."""
    _, shrink = _snippets("python")
    model = BertForSequenceClassification.from_pretrained("my-finetuned-bert")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))  # nothing is 0 by chance
    inputs = _batch(names)
    names.update(model=model, masks=_block_masks(model), ids=inputs["input_ids"], mask=inputs["attention_mask"])
    exec(compile(shrink, "README.md", "exec"), names)
    result, line = names["result"], next(line for line in shrink.splitlines() if "apply_to" in line)
    assert result.report.agreement.max_rel_diff <= 1e-5
    module = eval(line, names)
    multiply_masks(model, names["masks"])
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(result.graph_module(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(module(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (result.graph_module, module, model)]
    assert sizes == sorted(set(sizes))


def _batch(names: dict[str, Any]) -> dict[str, torch.Tensor]:
    batch = names["tokenizer"](["so far so good", "never again, thanks"], padding=True, return_tensors="pt")
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def _block_masks(model: nn.Module) -> dict[str, torch.Tensor]:
    """4 x 4 blocks, a third of them kept by chance; every other row of them gone in query, key and up."""
    generator = torch.Generator().manual_seed(0)
    masks = {}
    for name, weight in model.named_parameters():
        if ".layer." in name and weight.dim() == 2:
            rows, columns = (size // 4 for size in weight.shape)
            kept = torch.rand(rows, columns, generator=generator) < 1 / 3
            if "query" in name or "key" in name or "intermediate" in name:
                kept[1::2] = False
            masks[name] = expand_blocks(kept, (4, 4))
    return masks


def test_the_spec_loads(tmp_path: Path) -> None:
    (toml,) = _snippets("toml")
    path = tmp_path / "spec.toml"
    path.write_text(toml)
    spec = bpc.load_spec(path)
    assert spec.rules[1].paired
    assert spec.regularization.final_lambda == 10.0
