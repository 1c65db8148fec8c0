import math

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from benchmarks.training import Accuracy, accuracy, encode, logits, with_teacher
from examples.tweets.data import Tweet, encoder_directory


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast.from_pretrained(encoder_directory())


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_labels=3)
    return BertForSequenceClassification(config).eval()


TWEETS = [Tweet("late again", 0), Tweet("thank you so much for the wonderful flight", 2), Tweet("gate b7", 1)]


def test_logits_come_in_the_order_of_the_examples_and_padding_changes_nothing(
    model: BertForSequenceClassification, tokenizer: BertTokenizerFast
) -> None:
    data = encode(TWEETS, tokenizer)
    together = logits(model, data, tokenizer)
    for example, row in zip(data, together, strict=True):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([example["input_ids"]])).logits[0]
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-6)
    cached = with_teacher(data, together)
    assert cached[1]["teacher_logits"] == together[1].tolist()
    assert cached[1]["labels"] == 2


def test_accuracy_and_its_standard_error(model: BertForSequenceClassification, tokenizer: BertTokenizerFast) -> None:
    data = encode(TWEETS, tokenizer)
    predicted = logits(model, data, tokenizer).argmax(-1).tolist()
    right = [{**example, "labels": label} for example, label in zip(data, predicted, strict=True)]
    right[0]["labels"] = (predicted[0] + 1) % 3
    result = accuracy(model, right, tokenizer)
    assert result.value == pytest.approx(2 / 3)
    assert Accuracy(0.8, 4000).standard_error == pytest.approx(math.sqrt(0.16 / 4000))
    assert str(Accuracy(0.8, 4000)) == "80.00% ± 0.63%"
