"""Tiny traced encoders the emission tests share."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from torch import fx, nn
from transformers import BertConfig, BertForQuestionAnswering

import passes
from bpc.emit.axes import dynamic_axes
from bpc.emit.onnx import to_onnx
from passes.frontend.trace import exported_program


def tiny_bert(heads: tuple[int, ...] = (3, 1), ffn: tuple[int, ...] = (20, 12), seed: int = 0) -> nn.Module:
    """A 2-layer BERT whose layers keep different numbers of heads and FFN dims; weights large enough to matter."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=40, type_vocab_size=2,
    )  # fmt: skip
    model = BertForQuestionAnswering(config).eval()
    for layer, live, dims in zip(model.bert.encoder.layer, heads, ffn, strict=True):
        attention = layer.attention.self
        for name in ("query", "key", "value"):
            setattr(attention, name, nn.Linear(32, 8 * live))
        layer.attention.output.dense = nn.Linear(8 * live, 32)
        layer.intermediate.dense, layer.output.dense = nn.Linear(32, dims), nn.Linear(dims, 32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.4 if parameter.dim() > 1 else 0.6)
    return model


def example(batch: int = 2, length: int = 7) -> dict[str, torch.Tensor]:
    """Token ids and a mask that hides the end of the first row."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, -2:] = 0
    return {"input_ids": torch.arange(3, 3 + batch * length).view(batch, length), "attention_mask": mask}


@pytest.fixture(scope="session")
def exported(tiny_graph: fx.GraphModule) -> ir.Model:
    """Its plain ONNX model; clone before changing it."""
    program = exported_program(tiny_graph)
    return to_onnx(tiny_graph, program, dynamic_axes(tiny_graph, program))


@pytest.fixture(scope="session")
def tiny_graph() -> fx.GraphModule:
    """The traced tiny BERT."""
    return passes.trace(tiny_bert(), example())
