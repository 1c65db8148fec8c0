"""Steps of a generation to trace and to check on: prompts, later tokens, padded batches, caches that the model made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bpc.emit.cached import CachedDecoder, CacheError, Encoder, FirstStep, LaterStep
from bpc.inputs import example_inputs

# (batch, past, length). The first is traced: no two sizes of it are the same, and none is 1.
_SIZES = ((2, 5, 3), (1, 0, 1), (3, 0, 7), (2, 9, 1), (1, 1, 1), (4, 2, 4))
_SOURCES = (4, 1, 9, 6, 2, 3)  # lengths of what the encoder read


@dataclass(frozen=True)
class Case:
    """One call of a step, by keywords."""

    description: str
    inputs: dict[str, Any]


def decoder_steps(model: nn.Module) -> Iterator[tuple[CachedDecoder, list[Case]]]:
    """A decoder alone, in one module. Rows are padded on the left, each by another number of tokens."""
    step, cases = CachedDecoder(model), []
    tokens = _Tokens(model)
    one_token = _run(step, **_decoder_inputs(step, tokens(1, 1), 0), past_key_values=[])["present"]

    def none(kv: torch.Tensor, batch: int) -> torch.Tensor:
        return kv.new_empty(batch, kv.shape[1], 0, kv.shape[3])

    for batch, past, length in _SIZES:
        ids = tokens(batch, past + length)
        inputs = _decoder_inputs(step, ids, past)
        if past:
            before = _decoder_inputs(step, ids[:, :past], 0, inputs["attention_mask"][:, :past])
            held = _run(step, **before, past_key_values=[])["present"]
        else:
            held = [{part: none(kv, batch) for part, kv in layer.items()} for layer in one_token]
        cases.append(Case(f"batch {batch}, past {past}, {length} tokens", inputs | {"past_key_values": held}))
    yield step, cases


def encoder_decoder_steps(model: Any) -> Iterator[tuple[nn.Module, list[Case]]]:
    """Encoder, first and later steps of the decoder. What the encoder reads is padded on the right, where it may be."""
    encoder, first = Encoder(model), FirstStep(model)
    tokens = _Tokens(model)
    sources = [_source(model, tokens, batch, length) for (batch, *_), length in zip(_SIZES, _SOURCES, strict=True)]
    ids = [tokens(batch, past + length) for batch, past, length in _SIZES]
    masked = encoder.takes_mask and "attention_mask" in sources[0]
    if not (masked and _reads_mask(encoder, first, sources[0], ids[0])):
        sources = [{name: value for name, value in source.items() if name != "attention_mask"} for source in sources]
    firsts, laters, width = [], [], 0
    for (batch, past, length), source, row in zip(_SIZES, sources, ids, strict=True):
        states = _run(encoder, **source)["last_hidden_state"]
        width = states.shape[2]
        mask = {"encoder_attention_mask": source["attention_mask"]} if "attention_mask" in source else {}
        given = {"encoder_hidden_states": states, **mask}
        start = max(past, 1)
        note = f"batch {batch}, {states.shape[1]} states, {start} tokens"
        firsts.append(Case(note, {"input_ids": row[:, :start], **given}))
        held = _run(first, **firsts[-1].inputs)["present"]
        new = tokens(batch, length)
        laters.append(Case(f"{note} before {length}", {"input_ids": new, **mask, "past_key_values": held}))
    yield encoder, [Case(f"batch {batch}", source) for (batch, *_), source in zip(_SIZES, sources, strict=True)]
    yield first, firsts
    yield LaterStep(model, width), laters


class _Tokens:
    """Random tokens of a model's vocabulary, the same ones in every run."""

    def __init__(self, model: Any) -> None:
        text = model.config.get_text_config(decoder=True)
        self.vocabulary = int(text.vocab_size)
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, batch: int, length: int) -> torch.Tensor:
        return torch.randint(0, self.vocabulary, (batch, length), generator=self.generator)


def _decoder_inputs(
    step: CachedDecoder, ids: torch.Tensor, past: int, mask: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """What belongs to the tokens after the first ``past`` ones, as transformers' generate() prepares it."""
    if mask is None:
        mask = torch.ones_like(ids)
        for row in range(len(ids)):
            mask[row, : min(2 * row, ids.shape[1] - 1)] = 0
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
    inputs = {"input_ids": ids[:, past:], "attention_mask": mask}
    return inputs | ({"position_ids": positions[:, past:]} if step.takes_positions else {})


def _source(model: Any, tokens: _Tokens, batch: int, length: int) -> dict[str, torch.Tensor]:
    """What the encoder reads: tokens with a ragged mask, or features of the length that the model has."""
    if model.main_input_name == "input_ids":
        ids = tokens(batch, length)
    else:
        features = example_inputs(model).get(model.main_input_name)
        if features is None:
            raise CacheError(f"its encoder reads {model.main_input_name}, of which no example can be made")
        rows = features[torch.arange(batch) % len(features)]
        ids = rows + 0.1 * torch.randn(rows.shape, generator=tokens.generator)
    if ids.dim() > 3:  # an image
        return {model.main_input_name: ids}
    mask = torch.ones(batch, ids.shape[-1], dtype=torch.long)
    for row in range(batch):
        mask[row, max(1, mask.shape[1] - 2 * row - 1) :] = 0
    return {model.main_input_name: ids, "attention_mask": mask}


def _reads_mask(encoder: Encoder, first: FirstStep, source: dict[str, torch.Tensor], ids: torch.Tensor) -> bool:
    """Whether what the encoder's mask hides makes a difference. Whisper takes a mask, and reads none."""
    visible = source | {"attention_mask": torch.ones_like(source["attention_mask"])}
    results = []
    for given in (source, visible):
        states = _run(encoder, **given)["last_hidden_state"]
        mask = given["attention_mask"]
        results.append(_run(first, input_ids=ids, encoder_hidden_states=states, encoder_attention_mask=mask)["logits"])
    return not torch.equal(*results)


def _run(step: nn.Module, **inputs: Any) -> dict[str, Any]:
    with torch.no_grad():
        result: dict[str, Any] = step(**inputs)
    return result
