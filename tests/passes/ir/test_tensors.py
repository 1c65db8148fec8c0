"""Masked entries are exact zeros, whatever stood there."""

from __future__ import annotations

import torch

from passes.ir.tensors import masked


def test_infinities_and_nans_become_0_in_a_new_tensor() -> None:
    tensor = torch.tensor([float("inf"), float("nan"), 3.0])
    assert masked(tensor, torch.tensor([False, False, True])).tolist() == [0.0, 0.0, 3.0]
    assert tensor[0].item() == float("inf")
