"""The models that are measured, without pretrained weights, and the masks they are compiled under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK = 32
HEAD = 64
LENGTH = 16  # tokens of a text of the example that is traced
VOCABULARY = 1000  # small: layers are what is measured


@dataclass(frozen=True)
class Shape:
    """``family``: "bert" or "llama". ``ffn``, ``heads``, ``kv_heads``: 0 for what follows from the width."""

    family: str
    layers: int
    width: int
    ffn: int = 0
    heads: int = 0
    kv_heads: int = 0
    vocabulary: int = VOCABULARY

    def config(self) -> Any:
        """Its config of transformers: BERT with heads of 64 and an FFN of 4 × width, Llama in the proportions of 7B."""
        import transformers

        if self.family == "bert":
            return transformers.BertConfig(
                hidden_size=self.width,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads or self.width // HEAD,
                intermediate_size=self.ffn or 4 * self.width,
                vocab_size=self.vocabulary,
                num_labels=3,
            )
        heads = self.heads or max(self.width // 128, 4)
        return transformers.LlamaConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=self.kv_heads or heads,
            intermediate_size=self.ffn or 43 * self.width // 16,
            vocab_size=self.vocabulary,
            use_cache=False,
        )

    def build(self) -> Any:
        """The model, random weights, in evaluation mode."""
        import transformers

        classes = {"bert": transformers.BertForSequenceClassification, "llama": transformers.LlamaForCausalLM}
        return classes[self.family](self.config()).eval()

    def example(self, batch: int = 2, length: int = LENGTH, device: str = "cpu") -> dict[str, Any]:
        """Random texts without padding."""
        ids = torch.zeros(batch, length, dtype=torch.long, device=device)
        if device != "meta":
            ids.random_(self.vocabulary, generator=torch.Generator().manual_seed(0))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def masks(self, model: Any) -> dict[str, Tensor]:
        """BERT: half of the dims and 1 of 5 attention blocks stay; Llama: 60 % of the dims and 70 % of the heads."""
        draw = torch.Generator().manual_seed(0)
        found = {}
        for name, weight in model.named_parameters():
            rows, columns = weight.shape if weight.dim() == 2 else (0, 0)
            if self.family == "bert" and ".layer." in name and rows > columns:
                found[name] = (torch.rand(rows, 1, generator=draw) > 0.5).expand(rows, columns)
                found[f"{name[: -len('weight')]}bias"] = found[name][:, 0]
            elif self.family == "bert" and ".layer." in name and rows == columns != 0:
                blocks = torch.rand(rows // BLOCK, columns // BLOCK, generator=draw) > 0.8
                found[name] = blocks.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
            elif name.endswith(("gate_proj.weight", "up_proj.weight")):
                found[name] = (torch.rand(rows, 1, generator=draw) > 0.4).expand(rows, columns)
            elif name.endswith("v_proj.weight"):
                config = model.config
                heads = torch.rand(config.num_key_value_heads, generator=draw) > 0.3
                found[name] = heads.repeat_interleave(config.head_dim)[:, None].expand(rows, columns)
        return found


LLAMA_7B = Shape("llama", 32, 4096, 11008, 32, 32, 32000)
LLAMA_70B = Shape("llama", 80, 8192, 28672, 64, 8, 32000)


def sizes(model: Any) -> dict[str, int]:
    """Its parameters, and those of its linear layers inside the stack, which masks reach."""
    inner = [p.numel() for name, p in model.named_parameters() if ".layer" in name and p.dim() == 2]
    return {"parameters": sum(p.numel() for p in model.parameters()), "in layers": sum(inner)}
