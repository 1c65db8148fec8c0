"""The pruning pattern: images against masks, and what cells say."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, fx
from transformers import LlamaConfig, LlamaModel

import passes
from bpc.report.pattern import KEPT, ZERO, pattern_rows
from bpc.report.summary import summarize
from tests.passes.families import FAMILIES, make


def pixels(uri: str) -> np.ndarray:
    """RGBA, (rows, columns, 4), as a reader of PNG files sees it."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


def test_images_show_kept_zero_and_gone(graph: fx.GraphModule, masks: dict[str, Tensor]) -> None:
    attention = pattern_rows(summarize(graph, masks))[0].drawings[0]
    (value,) = (band for band in attention.bands if band.title == "value")
    image = pixels(value.image)  # hidden down, heads across
    assert image.shape == (24, 32, 4)
    assert (image[:12, 8:24] == (*KEPT, 255)).all()  # the upper half of the hidden size
    assert (image[12:, 8:24] == (*ZERO, 255)).all()
    assert (image[:, 24:, 3] == 0).all()
    assert [cell.gone for cell in attention.cells] == [True, False, False, True]


def test_images_of_large_models_are_coarser(
    graph: fx.GraphModule, masks: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpc.report.pattern._PIXELS", 600)
    drawings = [d for row in pattern_rows(summarize(graph, masks)) for d in row.drawings]
    sizes = [pixels(band.image).shape[:2] for d in drawings for band in d.bands]
    assert sum(rows * columns for rows, columns in sizes) < 900
    assert all(columns >= 4 for _, columns in sizes[:4])  # no head is lost


def test_grouped_heads_say_who_shares() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=12, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, use_cache=False,
    )  # fmt: skip
    graph = passes.trace(LlamaModel(config).eval(), {"input_ids": torch.arange(8).view(2, 4)})
    output = torch.ones(16, 16, dtype=torch.bool)
    output[:, 8:] = False  # what heads 2 and 3 write is not read: their key and value go
    summary = summarize(graph, {"layers.0.self_attn.o_proj.weight": output})
    attention, ffn = pattern_rows(summary)[0].drawings
    assert [cell.gone for cell in attention.cells] == [False, False, True, True]
    assert "key 4 and 4 of 4 (shared by 2 heads)" in attention.cells[0].text
    assert "key 0 and 0 of 4 (shared by 2 heads)" in attention.cells[3].text
    assert [band.title for band in ffn.bands] == ["gate", "up", "down"]


@pytest.mark.parametrize("family", ["bart", "nn-decoder"])
def test_encoder_and_decoder_are_told_apart(family: str) -> None:
    """BART has a weight for queries and one for keys, torch's decoder one for both, used on two inputs."""
    model, inputs = make(FAMILIES[family], FAMILIES[family].forms[0])
    rows = pattern_rows(summarize(passes.trace(model, inputs), None))
    found = {row.title: [d.title for d in row.drawings] for row in rows}
    encoder = {"encoder layer 0": ["attention", "FFN"]} if family == "bart" else {}
    assert found == {**encoder, "decoder layer 0": ["attention", "cross-attention", "FFN"]}


def test_columns_of_fused_weights_are_no_heads() -> None:
    model, inputs = make(FAMILIES["gpt2"], FAMILIES["gpt2"].forms[0])
    summary = summarize(passes.trace(model, inputs), None)
    attention, _ = pattern_rows(summary)[0].drawings
    assert [(band.title, band.label) for band in attention.bands] == [
        ("query + key + value", "q + k + v"),
        ("output", "output"),
    ]
    assert attention.top == attention.bands[1].top > attention.bands[0].top
    assert "query" not in attention.cells[0].text
    assert pixels(attention.bands[0].image).shape[1] == summary.blocks[0].matrices[0].kept.shape[1]
