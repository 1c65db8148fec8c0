"""Copies of modules that hooks have left tensors on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from passes.plan.copies import full_copy, share_copy


def pruned_after_a_step() -> nn.Linear:
    """``weight`` is left over from a forward with gradients: no leaf, and deepcopy refuses it."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    prune.random_unstructured(layer, "weight", amount=0.5)
    layer(torch.randn(2, 4)).sum().backward()
    assert not layer.weight.is_leaf
    return layer


@pytest.mark.parametrize(("copied", "shared"), [(share_copy, True), (full_copy, False)])
def test_hooked_modules_are_copied(copied: Callable[[nn.Module], nn.Module], shared: bool) -> None:
    layer, x = pruned_after_a_step(), torch.randn(3, 4)
    again = copied(layer)
    assert torch.equal(again(x), layer(x))
    assert (again.weight_orig is layer.weight_orig) == shared
    with torch.no_grad():
        again.bias += 1
    assert torch.equal(layer(x), again(x)) == shared
