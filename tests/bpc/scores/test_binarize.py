import pytest
import torch

from bpc.scores.binarize import binarize, keep_top, mask_blocks


def test_sigmoid_threshold_keeps_scores_above_the_logit_of_the_threshold() -> None:
    scores = torch.tensor([[-2.3, -2.1, 0.0]])  # logit(0.1) = -2.197
    assert binarize(scores, "sigmoid_threshold", 0.1).tolist() == [[False, True, True]]
    assert binarize(scores, "sigmoid_threshold", 0.0).all()


def test_topk_keeps_exactly_the_fraction_even_among_equal_scores() -> None:
    assert binarize(torch.zeros(4, 5), "topk", 0.25).sum() == 5
    assert binarize(torch.zeros(4, 5), "topk", 1.0).all()
    assert not binarize(torch.zeros(4, 5), "topk", 0.0).any()
    assert keep_top(torch.tensor([3.0, 1.0, 2.0]), 2 / 3).tolist() == [True, False, True]


def test_floor_keeps_the_highest_scores_whatever_the_threshold_says() -> None:
    scores = torch.linspace(-9, -5, 10).view(2, 5)
    kept = binarize(scores, "sigmoid_threshold", 0.1, min_kept=0.2)
    assert kept.sum() == 2
    assert kept[1, 3:].all()


@pytest.mark.parametrize("block", [(2, 3), (1, 6), (4, 1), (4, 6), (1, 1)])
def test_straight_through_gradient_is_the_formula(block: tuple[int, int]) -> None:
    """∂L/∂W = g·m and ∂L/∂S_b = Σ_{(i,j) in b} g_ij·W_ij, also where the block is pruned (method.md)."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = 4, 6
    m, n = block
    weight = torch.randn(rows, columns, dtype=torch.float64, generator=generator, requires_grad=True)
    scores = torch.randn(rows // m, columns // n, dtype=torch.float64, generator=generator, requires_grad=True)
    kept = scores.detach() > 0
    upstream = torch.randn(rows, columns, dtype=torch.float64, generator=generator)

    masked = mask_blocks(weight, scores, kept, block)
    masked.backward(upstream)

    expected_masked = torch.empty(rows, columns, dtype=torch.float64)
    expected_weight = torch.empty(rows, columns, dtype=torch.float64)
    expected_scores = torch.zeros(rows // m, columns // n, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            bit = float(kept[i // m, j // n])
            expected_masked[i, j] = weight[i, j].detach() * bit
            expected_weight[i, j] = upstream[i, j] * bit
            expected_scores[i // m, j // n] += upstream[i, j] * weight[i, j].detach()
    torch.testing.assert_close(masked.detach(), expected_masked, rtol=0, atol=0)
    torch.testing.assert_close(weight.grad, expected_weight, rtol=0, atol=0)
    torch.testing.assert_close(scores.grad, expected_scores, rtol=1e-12, atol=1e-12)


def test_gradient_reaches_scores_alone_when_the_weight_is_frozen() -> None:
    scores = torch.zeros(2, 2, requires_grad=True)
    mask_blocks(torch.ones(4, 4), scores, scores.detach() >= 0, (2, 2)).sum().backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.full((2, 2), 4.0))
