"""What a generation loop runs at every step: forwards over the keys and values of earlier tokens, as plain tensors.

transformers hands caches about as objects of its own. Here they are lists of {"key", "value"}, one per layer, each
(batch, heads, length, dim of a head) with the heads that the layer has: a small model has another number in each. All
layers keep the whole past: where attention looks back over a window, the model's own mask cuts it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

KeysAndValues: TypeAlias = Mapping[str, torch.Tensor]


class CacheError(ValueError):
    """The model keeps something else than keys and values of each layer, or generates nothing; the message says so."""


class CachedDecoder(nn.Module):
    """A decoder alone: tokens (batch, sequence) after a past of any length, also none; the logits and the new past."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        past_key_values: Sequence[KeysAndValues] = (),
    ) -> dict[str, Any]:
        """``attention_mask`` (batch, past + sequence). Raises ValueError where it has another length."""
        past, length = _length(past_key_values), input_ids.shape[1]
        if attention_mask.shape[1] != past + length:
            raise ValueError(f"attention_mask has {attention_mask.shape[1]} columns for {past} + {length} tokens")
        positions = {} if position_ids is None else {"position_ids": position_ids}
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=_cache(past_key_values),
            use_cache=True,
            **positions,
        )
        return {"logits": out.logits, "present": layers_of(getattr(out, "past_key_values", None))}


class Encoder(nn.Module):
    """The encoder of a model that has a decoder as well."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()
        self.takes_mask = "attention_mask" in inspect.signature(self.encoder.forward).parameters

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """(batch, length, width) of tokens or features and, where the decoder reads it, their mask."""
        return {"last_hidden_state": self.encoder(**inputs)[0]}


class FirstStep(nn.Module):
    """The decoder's first tokens: it makes the keys and values of the encoder's states as well as its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        out = _decode(self.model, input_ids, encoder_hidden_states, encoder_attention_mask, cache)
        own, cross = layers_of(cache.self_attention_cache), layers_of(cache.cross_attention_cache)
        pairs = zip(own, cross, strict=True)
        return {"logits": out.logits, "present": [{"decoder": mine, "encoder": others} for mine, others in pairs]}


class LaterStep(nn.Module):
    """The decoder's tokens after the first: it reads the keys and values that were made, and adds its own."""

    def __init__(self, model: nn.Module, width: int) -> None:
        """``width``: of the encoder's states."""
        super().__init__()
        self.model, self.width = model, width

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Sequence[Mapping[str, KeysAndValues]] = (),
    ) -> dict[str, Any]:
        own, cross = ([layer[part] for layer in past_key_values] for part in ("decoder", "encoder"))
        _length(own)
        cache = EncoderDecoderCache(_cache(own), _cache(cross))
        # The encoder's states are only asked for their length: what is read of them stands in the cache.
        states = cross[0]["key"].new_zeros(input_ids.shape[0], _length(cross), self.width)
        out = _decode(self.model, input_ids, states, encoder_attention_mask, cache)
        present = layers_of(cache.self_attention_cache)
        return {"logits": out.logits, "present": [{"decoder": layer} for layer in present]}


def layers_of(cache: Any) -> list[KeysAndValues]:
    """The keys and values of each layer. Raises `CacheError` for a cache that holds something else."""
    layers = getattr(cache, "layers", None)
    if not layers:
        raise CacheError("its forward gives back no keys and values of its layers")
    for layer in layers:
        for part in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if not isinstance(part, torch.Tensor) or part.dim() != 4:
                raise CacheError(f"{type(layer).__name__} keeps no keys and values (batch, heads, length, dim)")
    return [{"key": layer.keys, "value": layer.values} for layer in layers]


def _decode(model: nn.Module, ids: torch.Tensor, states: torch.Tensor, mask: Any, cache: EncoderDecoderCache) -> Any:
    given = {} if mask is None else {"attention_mask": mask}
    encoded = BaseModelOutput(last_hidden_state=states)
    return model(decoder_input_ids=ids, encoder_outputs=encoded, past_key_values=cache, use_cache=True, **given)


def _cache(layers: Sequence[KeysAndValues]) -> DynamicCache:
    return DynamicCache([(layer["key"], layer["value"]) for layer in layers] or None)


def _length(layers: Sequence[KeysAndValues]) -> Any:
    """The length of the past, which is one for all layers. Raises ValueError where it is not."""
    lengths = [part.shape[2] for layer in layers for part in layer.values()]
    for other in lengths[1:]:
        if other != lengths[0]:
            raise ValueError(f"past key values are of {lengths[0]} and of {other} tokens")
    return lengths[0] if lengths else 0
