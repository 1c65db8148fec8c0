"""Files at the lengths and sizes a user brings: ONNX Runtime against the eager masked model, far from the example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers as hf
from torch import nn

import passes
from bpc.emit.onnx import export_onnx
from tests.passes.families.base import hugging_face, scale_parameters

pytestmark = pytest.mark.filterwarnings("ignore")

Inputs = Mapping[str, Any]

SPEECH: dict[str, Any] = {
    "vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 6), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "layerdrop": 0.1, "pad_token_id": 0,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
WHISPER: dict[str, Any] = {
    "vocab_size": 50, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8,
    "max_source_positions": 16, "max_target_positions": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
IMAGE: dict[str, Any] = {
    "image_size": 16, "patch_size": 4, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48,
}  # fmt: skip
SWIN: dict[str, Any] = {
    "image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4,
    "mlp_ratio": 2.0,
}  # fmt: skip


def wave(batch: int, size: int, padded: bool) -> Inputs:
    samples = torch.randn(batch, size)
    if padded:
        samples[-1, size // 2 :] = 0.0  # what their feature extractors do for models without a mask
    return {"input_values": samples}


def text(batch: int, size: int, padded: bool) -> Inputs:
    mask = torch.ones(batch, size, dtype=torch.long)
    if padded:
        mask[-1, max(1, size // 4) :] = 0
    return {"input_ids": torch.randint(3, 50, (batch, size)), "attention_mask": mask}


def uncached_text(batch: int, size: int, padded: bool) -> Inputs:
    return {**text(batch, size, padded), "use_cache": False}


def sound(batch: int, size: int, padded: bool) -> Inputs:
    ids = torch.randint(3, 50, (batch, size))
    return {"input_features": torch.randn(batch, 8, 32), "decoder_input_ids": ids, "use_cache": False}


def image(batch: int, size: int, padded: bool) -> Inputs:
    return {"pixel_values": torch.randn(batch, 3, size, size)}


def larger_image(batch: int, size: int, padded: bool) -> Inputs:
    return {**image(batch, size, padded), "interpolate_pos_encoding": True}


@dataclass(frozen=True)
class Case:
    """``masked``: endings of the parameters whose first rows are masked. ``sizes``: of the example, then others."""

    build: Callable[[str], nn.Module]
    inputs: Callable[[int, int, bool], Inputs]
    masked: tuple[str, ...]
    sizes: tuple[int, ...]


QKV = ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias")
CASES: Mapping[str, Case] = {
    "wav2vec2": Case(hugging_face(hf.Wav2Vec2ForCTC, hf.Wav2Vec2Config, SPEECH), wave, QKV, (400, 97, 1300, 3001)),
    "hubert": Case(hugging_face(hf.HubertForCTC, hf.HubertConfig, SPEECH), wave, QKV, (400, 97, 1300, 3001)),
    "whisper": Case(
        hugging_face(hf.WhisperForConditionalGeneration, hf.WhisperConfig, WHISPER), sound, (*QKV, "fc1.weight"),
        (5, 2, 17, 48),
    ),
    "modernbert": Case(
        hugging_face(
            hf.ModernBertForMaskedLM,
            hf.ModernBertConfig,
            TEXT | {"local_attention": 8, "global_attn_every_n_layers": 2},
        ),
        text, ("mlp.Wi.weight",), (7, 2, 30, 90),
    ),
    "sliding window": Case(
        hugging_face(hf.MistralModel, hf.MistralConfig, TEXT | {"num_key_value_heads": 2, "sliding_window": 6}),
        uncached_text, ("gate_proj.weight", "up_proj.weight"), (7, 2, 30, 90),
    ),
    "vit": Case(hugging_face(hf.ViTForImageClassification, hf.ViTConfig, IMAGE), image, QKV, (16,)),
    "vit at another resolution": Case(
        hugging_face(hf.ViTForImageClassification, hf.ViTConfig, IMAGE), larger_image, QKV, (24,)
    ),
    "swin": Case(hugging_face(hf.SwinForImageClassification, hf.SwinConfig, SWIN), image, QKV, (16,)),
}  # fmt: skip


def masks_of(model: nn.Module, endings: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Masks of the first quarter of the rows of these parameters: whole heads, or units."""
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if n.endswith(endings)}
    for mask in masks.values():
        mask[: len(mask) // 4] = False
    return masks


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "hubert" else n for n in CASES])
def test_files_hold_far_from_their_example(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    model = case.build("sdpa").eval()
    scale_parameters(model)
    masks = masks_of(model, case.masked)
    assert masks
    example, *others = case.sizes
    small = passes.shrink(passes.trace(model, case.inputs(2, example, True)), masks, verify=False).graph_module
    with torch.no_grad():
        for parameter, mask in masks.items():
            model.get_parameter(parameter).mul_(mask)
    written = export_onnx(small, tmp_path / "model.onnx")
    assert written.agreement is not None
    assert not written.agreement.fixed
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    largest = 0.0
    for size in others or [example]:
        for batch, padded in ((1, False), (3, False), (3, True)):
            inputs = case.inputs(batch, size, padded)
            with torch.no_grad():
                expected = next(iter(model(**inputs).values())).numpy()
            actual = session.run(None, {v.name: inputs[v.name].numpy() for v in session.get_inputs()})[0]
            assert actual.shape == expected.shape
            worst = np.abs(actual - expected).max() / np.abs(expected).max()
            assert worst < 1e-4, f"size {size}, batch {batch}, padded {padded}"
            largest = max(largest, worst)
    print(f"{name}: {largest:.1e} of the largest output")  # pytest -rP shows it
    for value, dim in ((v, d) for v in session.get_inputs() for d in v.shape if isinstance(d, int)):
        assert dim in case.inputs(2, example, False)[value.name].shape  # static dims are the example's, and say so
