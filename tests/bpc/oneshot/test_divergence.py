"""Distances of outputs against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling, QuestionAnsweringModelOutput

from bpc.oneshot.divergence import divergence, outputs


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kl(wanted: torch.Tensor, given: torch.Tensor) -> float:
    found = functional.kl_div(given.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="none")
    return float(found.sum(-1).mean())


def test_class_scores_count_by_kl_per_row() -> None:
    a, b = logits(5, 3), logits(5, 3, seed=1)
    assert divergence({"logits": a}, {"logits": b}, {}) == pytest.approx(kl(a, b), rel=1e-5)
    assert divergence({"logits": a}, {"logits": a}, {}) == 0


def test_scores_of_minus_infinity_are_no_nan() -> None:
    a = logits(5, 3)
    a[:, 0] = -torch.inf
    assert divergence({"logits": a}, {"logits": a.clone()}, {}) == 0


def test_padding_does_not_count() -> None:
    a, b = logits(2, 4, 6), logits(2, 4, 6, seed=1)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    rows = mask.bool()
    assert divergence({"logits": a}, {"logits": b}, {"attention_mask": mask}) == pytest.approx(kl(a[rows], b[rows]))


def test_labels_of_their_own_have_probabilities_of_their_own() -> None:
    a, b = logits(5, 3), logits(5, 3, seed=1)
    p, q = a.double().sigmoid(), b.double().sigmoid()
    wanted = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1).mean()
    assert divergence({"logits": a}, {"logits": b}, {}, multi_label=True) == pytest.approx(float(wanted), rel=1e-4)


def test_spans_have_two_sets_of_scores() -> None:
    starts, ends = logits(3, 7), logits(3, 7, seed=1)
    original = QuestionAnsweringModelOutput(start_logits=starts, end_logits=ends)
    moved = QuestionAnsweringModelOutput(start_logits=starts, end_logits=ends + logits(3, 7, seed=2))
    wanted = kl(ends, ends + logits(3, 7, seed=2)) / 2
    assert divergence(original, moved, {}) == pytest.approx(wanted, rel=1e-4)


def test_a_single_score_and_embeddings_count_by_squared_error_over_variance() -> None:
    a = logits(6, 1)
    noise = 0.1 * logits(6, 1, seed=3)
    wanted = float(noise.square().mean() / (a - a.mean()).square().mean())
    assert divergence({"logits": a}, {"logits": a + noise}, {}) == pytest.approx(wanted, rel=1e-3)
    hidden = BaseModelOutputWithPooling(last_hidden_state=logits(2, 3, 4), pooler_output=logits(2, 4, seed=1))
    assert [name for name, _ in outputs(hidden)] == ["last_hidden_state", "pooler_output"]
    assert divergence(logits(4, 4), logits(4, 4), {}) == 0
    assert divergence((a,), (a + noise,), {}) == pytest.approx(wanted, rel=1e-3)
