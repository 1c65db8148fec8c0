"""Example inputs from a model's own dummies."""

from __future__ import annotations

import torch
from torch import nn

import passes
from passes.frontend.inputs import dummy_inputs
from passes.ir.info import trace_info

IDS = torch.tensor([[3, 1, 0], [2, 0, 0]])


class Seq2Seq(nn.Module):
    """As T5: the dummies' own decoder mask hides the first key, the only one a causal first row could see."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 6)
        hidden = torch.tensor([[0, 1, 1], [1, 1, 0]])
        bias = torch.randn(2, 1, 3)
        self.dummy_inputs = {"input_ids": IDS, "decoder_attention_mask": hidden, "bias_attention_mask": bias, "odd": 1}

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        decoder_attention_mask: torch.Tensor,
        bias_attention_mask: torch.Tensor,
        use_cache: bool = True,
    ) -> torch.Tensor:
        assert not use_cache
        x = self.embedding(input_ids)
        causal = torch.ones_like(x[0, :, 0]).diag().cumsum(0).bool()
        mask = (attention_mask * decoder_attention_mask).bool()[:, None] & causal
        x = torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)
        return x + bias_attention_mask.mean()


def test_masks_hide_nothing_and_the_rest_is_as_the_model_says() -> None:
    model = Seq2Seq()
    inputs = dummy_inputs(model)
    assert inputs is not None
    assert set(inputs) == {
        "input_ids",
        "attention_mask",
        "decoder_attention_mask",
        "bias_attention_mask",
        "use_cache",
    }
    assert inputs["input_ids"] is IDS
    assert inputs["use_cache"] is False
    for name in ("attention_mask", "decoder_attention_mask"):
        assert torch.equal(inputs[name], torch.ones_like(IDS))
    assert inputs["bias_attention_mask"] is model.dummy_inputs["bias_attention_mask"]  # additive: zeros would hide none


def test_trace_takes_them() -> None:
    example = trace_info(passes.trace(Seq2Seq())).kwargs
    assert bool(example["decoder_attention_mask"].all())


def test_none_without_dummies() -> None:
    assert dummy_inputs(nn.Linear(2, 2)) is None
