"""Example inputs made from what a model says of itself."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperModel,
)

import bpc
from bpc.inputs import example_inputs

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
VISION = {**SMALL, "image_size": 8, "patch_size": 4}


def bert() -> PreTrainedModel:
    return BertModel(BertConfig(**SMALL, vocab_size=200))


def t5() -> PreTrainedModel:
    return T5Model(T5Config(d_model=16, d_kv=8, d_ff=8, num_layers=1, num_heads=2, vocab_size=200))


def vit() -> PreTrainedModel:
    return ViTModel(ViTConfig(**VISION))


def clip() -> PreTrainedModel:
    text = {**SMALL, "vocab_size": 200, "eos_token_id": 2}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION))


def whisper() -> PreTrainedModel:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_source_positions": 10}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    return WhisperModel(WhisperConfig(**sizes, **heads, vocab_size=200, pad_token_id=0))


def wav2vec2() -> PreTrainedModel:
    return Wav2Vec2Model(Wav2Vec2Config(**SMALL, conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(5, 2),
                                        num_feat_extract_layers=2, num_conv_pos_embedding_groups=2))  # fmt: skip


@pytest.mark.parametrize("make", [bert, t5, vit, clip, whisper, wav2vec2])
def test_the_model_accepts_them(make: type[PreTrainedModel]) -> None:
    model = make().eval()
    inputs = example_inputs(model)
    with torch.no_grad():
        model(**inputs)
    assert all(value.shape[0] >= 2 for value in inputs.values() if isinstance(value, torch.Tensor))


def test_text_models_get_a_padding_mask_and_no_cache() -> None:
    assert {"input_ids", "attention_mask"} <= example_inputs(bert()).keys()
    inputs = example_inputs(t5())
    assert inputs["use_cache"] is False
    assert "decoder_attention_mask" not in inputs  # no tokenizer makes one


@pytest.mark.parametrize("names", [None, ["input_ids", "token_type_ids", "attention_mask", "special_tokens_mask"]])
def test_several_texts_are_there_to_choose_from(names: list[str] | None) -> None:
    """All that the tokenizer makes and the model takes, for every choice."""
    model = BertForMultipleChoice(BertConfig(**SMALL, vocab_size=200)).eval()
    inputs = example_inputs(model, None if names is None else tokenizer(names))
    assert {"input_ids", "attention_mask"} | ({"token_type_ids"} if names else set()) == {
        name for name, value in inputs.items() if isinstance(value, torch.Tensor)
    }
    batch, choices = next(iter(inputs.values())).shape[:2]
    assert batch != choices
    with torch.no_grad():
        assert model(**inputs).logits.shape == (batch, choices)


def test_a_model_that_chooses_is_compiled_and_shrunk() -> None:
    model = BertForMultipleChoice(BertConfig(**SMALL, vocab_size=200)).eval()
    program = bpc.compile(model, "struct")
    with torch.no_grad():
        for scores in program.score_parameters():
            scores[:1] = -10.0
    dense = program.shrink()
    tokens = {"input_ids": torch.randint(1, 200, (2, 4, 7)), "attention_mask": torch.ones(2, 4, 7, dtype=torch.long)}
    with torch.no_grad():
        expected = program.masked_model().eval()(**tokens).logits
        torch.testing.assert_close(dense.module(**tokens).logits, expected, rtol=1e-4, atol=1e-5)


def tokenizer(names: list[str]) -> PreTrainedTokenizerFast:
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "model", "shorter"])}
    made = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names)


def test_both_towers_get_their_input() -> None:
    assert {"input_ids", "pixel_values"} <= example_inputs(clip()).keys()


def test_nothing_is_made_up_for_a_module_that_says_nothing() -> None:
    assert example_inputs(nn.Linear(2, 2)) == {}
