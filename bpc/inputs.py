"""Example inputs for a model of transformers: what its modalities, its config and its tokenizer say it takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES

from passes.frontend.inputs import dummy_inputs

CHOICES = 3  # no batch here has that size: a model that confused the two would be found out
WAVE_SAMPLES = 4000  # a quarter of a second at 16 kHz


def example_inputs(model: nn.Module, tokenizer: Any | None = None) -> dict[str, Any]:
    """Keyword arguments to trace ``model`` with, whichever its forward takes, in a batch of 2 or more:

    tokens (batch, length), or (batch, choices, length) where one of several texts is chosen; images (batch, channels,
    height, width), spectrograms (batch, bins, frames) or waves (batch, samples).

    Texts come from the tokenizer where there is one. Attention masks are included, so that padded batches work after
    export; the key-value cache is switched off. Empty for a model that says nothing of its inputs.
    """
    accepted = inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", None)
    modalities = getattr(model, "input_modalities", ())
    dummies = dummy_inputs(model) or {}
    found: dict[str, Any] = {name: value for name, value in dummies.items() if isinstance(value, torch.Tensor)}
    if main == "input_ids":
        # Nothing of the decoder's: its tokens are made below, for any source of texts, and its mask is for training.
        texts = found if tokenizer is None else _texts(tokenizer)
        found = {name: texts[name] for name in texts if not name.startswith("decoder_")}
    two_towers = "image" in modalities and not hasattr(model.config, "image_token_id")  # else text alone is an input
    if main == "pixel_values" or two_towers:
        found |= _images(model)
    if main == "input_features":
        found |= _features(model)
    if main == "input_values":
        found.setdefault("input_values", torch.randn(2, WAVE_SAMPLES))
    found = {name: value for name, value in found.items() if name in accepted}
    if type(model).__name__ in MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES.values():
        found = {
            name: value[:2].unsqueeze(1).repeat(1, CHOICES, 1) if isinstance(value, torch.Tensor) else value
            for name, value in found.items()
        }
    if found and "decoder_input_ids" in accepted:
        batch = next(iter(found.values())).shape[0]
        found["decoder_input_ids"] = torch.ones(batch, 5, dtype=torch.long)
    if found and "use_cache" in accepted:
        found["use_cache"] = False
    return found


def _texts(tokenizer: Any) -> Mapping[str, Any]:
    texts = ["The model is traced with two short texts.", "The second one is shorter."]
    padding = tokenizer.pad_token is not None
    encoded: Mapping[str, Any] = tokenizer(texts if padding else texts[:1] * 2, padding=padding, return_tensors="pt")
    return encoded


def _images(model: nn.Module) -> dict[str, Any]:
    config: Any = model.config
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return {"pixel_values": torch.randn(2, getattr(config, "num_channels", 3), height, width)}


def _features(model: nn.Module) -> dict[str, Any]:
    """A log-mel spectrogram of the length the encoder has positions for (Whisper's layout: bins, then time)."""
    config: Any = model.config
    if not hasattr(config, "num_mel_bins") or not hasattr(config, "max_source_positions"):
        return {}
    return {"input_features": torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions)}
