"""Time per operator."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertModel

import passes
from bpc.bench.profile import _fastest, profile, profile_table
from bpc.emit.onnx import export_onnx


def tiny_base(seed: int = 0) -> torch.fx.GraphModule:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=16,
    )  # fmt: skip
    ids = torch.randint(1, 40, (2, 6))
    return passes.trace(BertModel(config, add_pooling_layer=False).eval(), {"input_ids": ids})


def test_profile_counts_launches(tmp_path: Path) -> None:
    path = export_onnx(tiny_base(), tmp_path / "m.onnx").path
    found = profile(path, 2, 5, threads=1)
    assert found["MultiHeadAttention"][0] == 2
    assert all(ms > 0 for _, ms in found.values())
    table = profile_table(path, path, 2, 5, threads=1)
    assert table.row_count == len(found) + 1


def test_a_disturbed_run_counts_for_nothing() -> None:
    run = [("MatMul", 3000.0), ("Add", 10.0), ("MatMul", 1000.0)]
    warm_up = [(op, 1.0) for op, _ in run]
    first, second = ([(op, 9 * t if i == hit else t) for i, (op, t) in enumerate(run)] for hit in (0, 2))
    assert _fastest([*warm_up, *first, *second], 3) == {"MatMul": (2, 4.0), "Add": (1, 0.01)}
