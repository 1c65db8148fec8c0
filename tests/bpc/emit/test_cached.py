"""Steps over keys and values as plain tensors give what one forward over all tokens gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from bpc.emit.cached import CachedDecoder, CacheError, Encoder, FirstStep, LaterStep, layers_of
from bpc.emit.steps import decoder_steps, encoder_decoder_steps
from tests.bpc import generators
from tests.bpc.generators import IDS, LEFT, RIGHT


def test_a_decoder_goes_on_where_it_stopped() -> None:
    """Rows padded on the left, over a window of 4 that the cache is longer than."""
    model = generators.DECODERS["gemma"]()
    step = CachedDecoder(model)
    positions = (LEFT.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        whole = model(input_ids=IDS, attention_mask=LEFT, position_ids=positions).logits
        past: Any = []
        for start, end in ((0, 3), (3, 4), (4, 6)):
            out = step(IDS[:, start:end], LEFT[:, :end], positions[:, start:end], past)
            past = out["present"]
            seen = LEFT[:, start:end].bool()
            torch.testing.assert_close(out["logits"][seen], whole[:, start:end][seen], atol=1e-5, rtol=1e-5)
    assert {layer["key"].shape for layer in past} == {(3, 2, 6, 8)}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_decoder_reads_its_encoder_once(family: str) -> None:
    model: Any = generators.ENCODER_DECODERS[family]()
    with torch.no_grad():
        whole = model(input_ids=IDS, attention_mask=RIGHT, decoder_input_ids=IDS).logits
        states = Encoder(model)(input_ids=IDS, attention_mask=RIGHT)["last_hidden_state"]
        out = FirstStep(model)(IDS[:, :2], states, RIGHT)
        torch.testing.assert_close(out["logits"], whole[:, :2], atol=1e-5, rtol=1e-5)
        cross = [layer["encoder"] for layer in out["present"]]
        for end in (3, 6):
            own = [layer["decoder"] for layer in out["present"]]
            past = [{"decoder": mine, "encoder": others} for mine, others in zip(own, cross, strict=True)]
            start = own[0]["key"].shape[2]
            out = LaterStep(model, 32)(IDS[:, start:end], RIGHT, past)
            torch.testing.assert_close(out["logits"], whole[:, start:end], atol=1e-5, rtol=1e-5)


def test_lengths_that_do_not_belong_together_are_refused() -> None:
    step = CachedDecoder(generators.DECODERS["llama"]())
    with torch.no_grad():
        past = step(IDS, LEFT)["present"]
        with pytest.raises(ValueError, match=r"attention_mask has 6 columns for 6 \+ 6 tokens"):
            step(IDS, LEFT, None, past)
        past[1] = {"key": past[1]["key"][:, :, 1:], "value": past[1]["value"]}
        with pytest.raises(ValueError, match=r"past key values are of 6 and of 5 tokens"):
            step(IDS, torch.ones(3, 12), None, past)


class _States:
    """What a state-space model keeps."""

    layers = ({"state": torch.zeros(2, 3)},)


@pytest.mark.parametrize("cache", [None, _States()])
def test_what_is_no_cache_of_keys_and_values_is_refused(cache: Any) -> None:
    with pytest.raises(CacheError, match="keys and values"):
        layers_of(cache)


def test_steps_have_padded_rows_and_every_kind_of_past() -> None:
    ((step, cases),) = decoder_steps(generators.DECODERS["gpt2"]())
    assert isinstance(step, CachedDecoder)
    pasts = {case.inputs["past_key_values"][0]["key"].shape[2] for case in cases}
    assert {0, 1} < pasts
    assert any((case.inputs["attention_mask"] == 0).any() for case in cases)
    assert all(case.inputs["attention_mask"].any(1).all() for case in cases)
    first = cases[0].inputs
    assert len({2, 5, 3} & {*first["input_ids"].shape, first["past_key_values"][0]["key"].shape[2]}) == 3


@pytest.mark.parametrize(("family", "reads"), [("bart", True), ("whisper", False)])
def test_a_mask_that_no_decoder_reads_is_no_input(family: str, reads: bool) -> None:
    steps: list[tuple[nn.Module, Any]] = list(encoder_decoder_steps(generators.ENCODER_DECODERS[family]()))
    for _, cases in steps:
        assert any("attention_mask" in name for name in cases[0].inputs) == reads


def test_an_encoder_of_images_has_a_width_and_no_mask() -> None:
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    encoder = transformers.ViTModel(transformers.ViTConfig(image_size=224, patch_size=112, **sizes))
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=32, add_cross_attention=True, is_decoder=True
    )
    decoder = transformers.GPT2LMHeadModel(config)
    model = transformers.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder).eval()
    (_, images), (first, starts), (later, steps) = encoder_decoder_steps(model)
    assert images[0].inputs.keys() == {"pixel_values"}
    assert starts[0].inputs.keys() == {"input_ids", "encoder_hidden_states"}
    with torch.no_grad():
        start = starts[0].inputs
        held = first(**start)["present"]
        tokens = torch.cat([start["input_ids"], steps[0].inputs["input_ids"]], 1)
        whole = first(tokens, start["encoder_hidden_states"])["logits"]
        found = later(steps[0].inputs["input_ids"], None, held)["logits"]
        torch.testing.assert_close(found, whole[:, -found.shape[1] :], atol=1e-5, rtol=1e-5)
