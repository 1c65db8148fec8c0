"""Masks on disk and in weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bpc.scores.files import multiply_masks, save_masks
from passes import MaskError
from tests.bpc.scores.plans import FFN


def test_masks_of_one_tensor_under_two_names_are_written(tmp_path: Path) -> None:
    mask = torch.tensor([True, False])
    save_masks({"a": mask, "b": mask}, tmp_path / "masks.safetensors")
    assert torch.equal(load_file(tmp_path / "masks.safetensors")["b"], mask)


def test_masks_that_do_not_fit_touch_nothing() -> None:
    model = FFN()
    before = model.up.weight.clone()
    fitting = {"up.weight": torch.zeros(6, 4, dtype=torch.bool)}
    for wrong, message in (
        ({"up.gate": torch.ones(6, 4)}, r"mask for 'up\.gate': the model has no parameter"),
        ({"down.weight": torch.ones(6, 4)}, r"mask for 'down\.weight' has shape \(6, 4\); the parameter has \(4, 6\)"),
    ):
        with pytest.raises(MaskError, match=message):
            multiply_masks(model, {**fitting, **{name: mask.bool() for name, mask in wrong.items()}})
        assert torch.equal(model.up.weight, before)


def test_what_is_masked_is_zero_even_where_it_was_no_number() -> None:
    model = FFN()
    with torch.no_grad():
        model.up.weight[0, 0] = torch.nan
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[0] = False
    multiply_masks(model, {"up.weight": mask})
    assert (model.up.weight[0] == 0).all()
    assert (model.up.weight[1:] != 0).all()
