"""What the pages take for granted: a model with twelve heads, a tokenizer, data, block masks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from examples.tweets.data import encoder_directory
from passes.masks.binarize import expand_blocks

ROOT = Path(__file__).parents[1]


def snippets(page: str, language: str = "python") -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def run(code: str, page: str, names: dict[str, Any]) -> None:
    exec(compile(code, page, "exec"), names)


def bert(layers: int = 2) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, hidden_size=96, num_attention_heads=12, intermediate_size=64)
    return BertForSequenceClassification(config)


def noisy_bert(layers: int = 2) -> BertForSequenceClassification:
    """In eval mode, nothing 0 by chance."""
    model = bert(layers).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(encoder_directory())


def batch(tokenize: Any) -> dict[str, torch.Tensor]:
    made = tokenize(["so far so good", "never again, thanks"], padding=True, return_tensors="pt")
    return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]}


def block_masks(model: nn.Module) -> dict[str, torch.Tensor]:
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
