"""What users hold their examples in, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from bpc.oneshot.batches import CalibrationError, calibration_batches, token_chunks, valid_rows
from tests.bpc.oneshot.models import made, padded

WORDS = ["[PAD]", "[UNK]", "a", "b", "c", "d"]


def tokenizer(padding: bool = True) -> Any:
    raw = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    extra = {"pad_token": "[PAD]"} if padding else {}
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", **extra)


TEXTS = ["a b", "a b c d", "c", "d a b", "a a a a a"]


def total(batches: list[dict[str, Any]]) -> int:
    return sum(len(batch["input_ids"]) for batch in batches)


def test_texts_are_tokenised_truncated_and_padded_little() -> None:
    model, _ = made("bert")
    batches = calibration_batches(model, TEXTS, tokenizer(), batch_size=2, max_length=4)
    assert total(batches) == 5
    assert max(batch["input_ids"].shape[1] for batch in batches) == 4
    assert sum(int((batch["attention_mask"] == 0).sum()) for batch in batches) <= 2
    assert total(calibration_batches(model, TEXTS, tokenizer(), samples=3)) == 3


def test_texts_without_a_padding_token_go_one_by_one() -> None:
    model, _ = made("bert")
    batches = calibration_batches(model, TEXTS, tokenizer(padding=False))
    assert [len(batch["input_ids"]) for batch in batches] == [1] * 5


def test_rows_of_a_data_set_are_padded_and_lose_their_labels() -> None:
    model, _ = made("bert")
    rows = [{**tokenizer()(text), "labels": 1, "text": text} for text in TEXTS]
    batches = calibration_batches(model, rows, tokenizer(), batch_size=3)
    assert total(batches) == 5
    assert all(batch.keys() == {"input_ids", "attention_mask", "token_type_ids"} for batch in batches) or all(
        batch.keys() == {"input_ids", "attention_mask"} for batch in batches
    )


def test_a_loader_gives_batches_as_they_are() -> None:
    model, batches = made("vit")
    rows = [{"pixel_values": image, "labels": 0} for batch in batches for image in batch["pixel_values"]]
    found = calibration_batches(model, DataLoader(rows, batch_size=5), samples=12)  # type: ignore[arg-type]
    assert [batch["pixel_values"].shape[0] for batch in found] == [5, 5, 5]
    found = calibration_batches(model, rows, batch_size=8)
    assert sum(batch["pixel_values"].shape[0] for batch in found) == 24
    assert all(batch.keys() == {"pixel_values"} for batch in found)


def test_a_decoder_reads_what_the_model_writes() -> None:
    model, batches = made("t5")
    found = calibration_batches(model, [{k: b[k] for k in ("input_ids", "attention_mask")} for b in batches])
    assert all(batch["decoder_input_ids"].shape[0] == 8 for batch in found)
    assert all(int(batch["decoder_input_ids"][0, 0]) == 0 for batch in found)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "hold no examples"),
        ("a text", "a list of texts, a data set or a loader of batches, not a str"),
        ([3, 4], "hold a int"),
        (TEXTS, "give the model's tokenizer"),
        ([{"text": "a b", "label": "x"}], "hold texts only"),
        ([{"labels": 1}, {"labels": 0}], "have no 'input_ids', which BertForSequenceClassification reads"),
        ([{"pixel_values": torch.randn(3, 4, 4)}], "have no 'input_ids'"),
        ([{"input_ids": [1, 2]}, {"input_ids": [1, 2, 3]}], "do not stack into batches"),
    ],
)
def test_data_that_do_not_fit_are_refused(data: Any, message: str) -> None:
    model, _ = made("bert")
    with pytest.raises(CalibrationError, match=message):
        calibration_batches(model, data)


def test_running_text_is_cut_into_pieces() -> None:
    found = token_chunks(["a b c", "d a"] * 5, tokenizer(), samples=3, length=4, batch_size=2)
    assert [tuple(batch["input_ids"].shape) for batch in found] == [(2, 4), (1, 4)]
    assert found[0]["input_ids"][0].tolist() == [2, 3, 4, 5]
    with pytest.raises(CalibrationError, match="5 tokens, fewer than one piece of 8"):
        token_chunks(["a b c", "d a"], tokenizer(), samples=3, length=8, batch_size=2)


def test_rows_are_told_from_padding_by_shape() -> None:
    batch = padded(0)
    value = torch.randn(*batch["attention_mask"].shape, 3)
    found = valid_rows(batch, value)
    assert found is not None
    assert torch.equal(found, batch["attention_mask"].bool())
    assert valid_rows(batch, value[:, :4]) is None
