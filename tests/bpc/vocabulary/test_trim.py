"""A model and its tokenizer, reduced to what some texts use."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, RobertaForMaskedLM

import bpc
import passes
from bpc.dense import DenseModel
from bpc.vocabulary.errors import VocabularyError
from examples.tweets.data import encoder_directory
from passes.verify.errors import VerificationError
from tests.bpc.vocabulary.models_of import MODELS, bert, roberta
from tests.bpc.vocabulary.tokenizers_of import corpus, tokenizer

TEXTS = corpus(seed=1, lines=30)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_loads_and_computes_the_same(name: str, tmp_path: Path) -> None:
    full = tokenizer("bytes")
    model = MODELS[name](len(full) + 5)  # rows that are no token's go as well
    small, small_tokenizer, report = bpc.trim_vocabulary(model, full, TEXTS, held_out=corpus(2, 30))
    small.save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert report.after.tokens == len(read) < len(full)
    assert report.after.parameters < report.before.parameters
    assert report.corpus.texts_whole == report.corpus.texts == 30
    assert report.held_out is not None
    assert 0 < report.held_out.tokens_kept < report.held_out.tokens
    ids, new_ids = ({**t(TEXTS[:4], padding=True, return_tensors="pt")} for t in (full, read))
    more = {"pixel_values": torch.randn(4, 3, 16, 16)} if name == "clip" else {}
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        ids["decoder_input_ids"], new_ids["decoder_input_ids"] = ids["input_ids"], new_ids["input_ids"]
    with torch.no_grad():
        before, after = model(**ids, **more)[0], loaded.eval()(**new_ids, **more)[0]
    if before.shape != after.shape:
        before = before[..., [full.convert_tokens_to_ids(read.convert_ids_to_tokens(i)) for i in range(len(read))]]
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_generation_goes_on_from_the_renumbered_ids() -> None:
    full = tokenizer("wordpiece")
    model = MODELS["bart"](len(full))
    small, read, _ = bpc.trim_vocabulary(model, full, corpus())
    options = {"max_new_tokens": 6, "do_sample": False, "num_beams": 2}
    before = model.generate(**full(TEXTS[0], return_tensors="pt"), **options)
    after = small.generate(**read(TEXTS[0], return_tensors="pt"), **options)
    assert read.convert_ids_to_tokens(after[0]) == full.convert_ids_to_tokens(before[0])


def test_tokens_that_a_config_names_stay() -> None:
    full = tokenizer("words")
    model = MODELS["gpt2"](len(full))
    model.generation_config.suppress_tokens = [90]
    small, read, _ = bpc.trim_vocabulary(model, full, TEXTS[:3])
    (kept,) = small.generation_config.suppress_tokens
    assert read.convert_ids_to_tokens(kept) == full.convert_ids_to_tokens(90)


def test_a_budget_is_kept_and_its_coverage_told() -> None:
    full = tokenizer("wordpiece")
    model = bert(len(full))
    _, read, report = bpc.trim_vocabulary(model, full, corpus(), keep_tokens=90, characters="used")
    assert len(read) == report.after.tokens == 90
    assert 0.5 < report.corpus.tokens_kept / report.corpus.tokens < 1
    assert "of 300 texts wholly" in str(report)
    with pytest.raises(VocabularyError, match="10 tokens are too few"):
        bpc.trim_vocabulary(model, full, corpus(), keep_tokens=10)


def test_small_models_stay_small_models(tmp_path: Path) -> None:
    """Also the embedding's other dim was cut, and the graph goes further than the module."""
    full = tokenizer("wordpiece")
    model = bert(len(full))
    with torch.no_grad():
        layer = model.bert.encoder.layer[0]
        layer.attention.self.value.weight[:16] = 0
        layer.attention.self.value.bias[:16] = 0
        layer.intermediate.dense.weight[:20] = 0
    inputs = {**full(TEXTS[:2], padding=True, return_tensors="pt")}
    dense = DenseModel.from_shrink(passes.shrink(passes.trace(model, inputs)), model)
    dense.save_pretrained(tmp_path / "small")
    trimmed, read, report = bpc.trim_vocabulary(bpc.load(tmp_path / "small"), full, TEXTS)
    trimmed.save_pretrained(tmp_path / "trimmed")
    read.save_pretrained(tmp_path / "trimmed")
    loaded = bpc.load(tmp_path / "trimmed")
    assert loaded.module.config.vocab_size == len(read) == report.after.tokens < len(full)
    assert loaded.module.bert.encoder.layer[0].intermediate.dense.out_features == 28
    assert loaded.certificate is None
    order = full.convert_tokens_to_ids(read.convert_ids_to_tokens(range(len(read))))
    new = {**read(TEXTS[:2], padding=True, return_tensors="pt")}
    expected = dense(**inputs).logits[..., order]
    by_auto: Any = type(model).from_pretrained(tmp_path / "trimmed").eval()
    with torch.no_grad():
        for logits in (loaded(**new).logits, loaded.module(**new).logits, by_auto(**new).logits):
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_model_whose_positions_count_from_the_padding_id_is_not_made_wrong() -> None:
    """Its padding id would move, and every position with it."""
    full = tokenizer("words")
    full.pad_token = full.convert_ids_to_tokens(60)
    model = roberta(len(full))
    model.config.pad_token_id = 60
    model.config.max_position_embeddings = 160
    model = RobertaForMaskedLM(model.config).eval()
    with pytest.raises(VerificationError, match="something else in the model depends on token ids"):
        bpc.trim_vocabulary(model, full, TEXTS[:4])


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(VocabularyError, match="is it this model's tokenizer"):
        bpc.trim_vocabulary(bert(50), tokenizer("wordpiece"), TEXTS)
    with pytest.raises(VocabularyError, match="there are no texts"):
        bpc.trim_vocabulary(bert(500), tokenizer("wordpiece"), [" "])


def test_a_real_encoder() -> None:
    directory = encoder_directory()
    model, full = AutoModel.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    texts = ["So far so good, thanks!", "never again. My bag was lost at LAX", "日本 naïve 😀"]
    small, read, report = bpc.trim_vocabulary(model, full, texts, held_out=["Where is my bag?", "unfathomable"])
    assert (report.before.tokens, report.difference) == (30_522, 0)
    assert 2000 < report.after.tokens < 2050  # characters, in the main
    assert report.held_out is not None
    assert report.held_out.texts_whole == 0
    assert (read.pad_token_id, read.cls_token, small.config.pad_token_id) == (0, "[CLS]", 0)
