"""Masked entries are exact zeros, whatever stood there."""

from __future__ import annotations

import pytest
import torch

from passes.ir.tensors import masked, not_zero, pieces, taken, without_copies

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
ODD = (float("inf"), float("nan"), 3.0, -0.0, 1e-40, 0.0)


def test_infinities_and_nans_become_0_in_a_new_tensor() -> None:
    tensor = torch.tensor([float("inf"), float("nan"), 3.0])
    assert masked(tensor, torch.tensor([False, False, True])).tolist() == [0.0, 0.0, 3.0]
    assert tensor[0].item() == float("inf")


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_pieces_hold_the_bits_of_one(dtype: torch.dtype) -> None:
    """Also of transposed tensors and masks of one row or column that is repeated."""
    tensor = torch.randn(700, 1024).to(dtype)
    tensor[::7, : len(ODD)] = torch.tensor(ODD).to(dtype)
    assert len(list(pieces(tensor))) > 1
    for mask in (torch.rand(tensor.shape) > 0.4, torch.rand(700, 1) > 0.4, torch.rand(1024) > 0.4):
        given = mask.expand(tensor.shape)
        for numbers, kept in ((tensor, given), (tensor.t(), given.t())):
            expected = numbers.masked_fill(~kept, 0)
            bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
            assert torch.equal(masked(numbers, kept).view(bits), expected.view(bits))
            assert torch.equal(not_zero(numbers, kept), (numbers != 0) & kept)
        assert torch.equal(without_copies(given), mask if mask.dim() == 2 else mask[None])


def test_numbers_and_truth_values_are_masked_too() -> None:
    assert masked(torch.tensor(3.0), torch.tensor(False)).item() == 0
    assert masked(torch.tensor([3, 4]), torch.tensor([True, False])).tolist() == [3, 0]
    assert masked(torch.empty(3, 0), torch.ones(3, 0).bool()).shape == (3, 0)


def test_a_pattern_of_truth_values_leaves_them_as_they_were() -> None:
    values = torch.ones(2, 2, dtype=torch.bool)
    assert not_zero(values, torch.eye(2).bool()).tolist() == [[True, False], [False, True]]
    assert bool(values.all())


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool, torch.int64, torch.complex64])
def test_taken_entries_have_the_bits_of_those_that_torch_selects(dtype: torch.dtype) -> None:
    """Also of transposed and of expanded tensors, and where nothing is taken."""
    tensor = torch.randn(7, 6).to(dtype)
    if dtype in DTYPES:
        tensor[1] = torch.tensor(ODD).to(dtype)
    for source in (tensor, tensor.t(), tensor[:, :1].expand(7, 6)):
        for dim in (0, 1):
            for indices in ((0, 2, 5), (), (1, 1)):
                expected = source.index_select(dim, torch.tensor(indices, dtype=torch.long))
                found = taken(source, dim, indices)
                assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
                assert torch.equal(found.view(torch.uint8), expected.contiguous().view(torch.uint8))


def test_an_index_that_is_not_there_is_no_other_one() -> None:
    for tensor in (torch.ones(3, 2), torch.ones(0, 2)):
        for indices in ((0, 3), (-1,)):
            with pytest.raises(IndexError):
                taken(tensor, 0, indices)
    assert taken(torch.ones(3, 2, device="meta"), 0, (0, 2)).shape == (2, 2)
