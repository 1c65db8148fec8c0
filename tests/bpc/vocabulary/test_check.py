"""Models that do not compute the same are told apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bpc.vocabulary.check import compare_models, renumbered
from bpc.vocabulary.embeddings import cut_vocabulary
from bpc.vocabulary.errors import VocabularyError
from passes.verify.errors import VerificationError
from tests.bpc.vocabulary.models_of import bert, llama

KEPT = (0, 1, 2, 3, 20, 41, 59)
NEW = {old: new for new, old in enumerate(KEPT)}
TEXTS = [{"input_ids": [2, 20, 3], "attention_mask": [1, 1, 1]}, {"input_ids": [41], "attention_mask": [1]}]


@pytest.mark.parametrize("pad", [0, None])
def test_logits_are_compared_at_the_kept_tokens(pad: int | None) -> None:
    model = bert(61).train()
    small, _ = cut_vocabulary(model, KEPT)
    assert compare_models(model, small, NEW, TEXTS, {}, pad) < 1e-5
    assert model.training
    with torch.no_grad():
        small.get_output_embeddings().bias[4] += 1e-3
    with pytest.raises(VerificationError, match=r"text 1 of the sample: outputs .* are 0\.001 off"):
        compare_models(model, small, NEW, TEXTS, {}, pad)


def test_a_model_that_reads_ids_as_numbers_is_found() -> None:
    class ByNumber(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, input_ids: torch.Tensor) -> Any:
            return (input_ids > 10).float() * self.scale

    with pytest.raises(VerificationError, match="something else in the model depends on token ids"):
        compare_models(ByNumber(), ByNumber(), NEW, TEXTS, {}, 0)


def test_a_model_that_does_not_run_on_texts_is_refused() -> None:
    with pytest.raises(VocabularyError, match="takes neither input_ids nor decoder_input_ids"):
        compare_models(nn.Linear(2, 2), nn.Linear(2, 2), NEW, TEXTS, {}, 0)


def test_half_precision_differs_by_no_more_than_it_stores() -> None:
    model = llama(61).to(torch.bfloat16)
    small, _ = cut_vocabulary(model, KEPT)
    compare_models(model, small, NEW, TEXTS, {}, 0)


def test_only_token_ids_are_renumbered() -> None:
    inputs = {"input_ids": torch.tensor([[41, 5, 60, 99]]), "labels": torch.tensor([41])}
    found = renumbered(inputs, NEW)
    assert found["input_ids"].tolist() == [[5, 0, 0, 0]]
    assert found["labels"].tolist() == [41]
