"""Masks in front of a module's parameters."""

import copy
import dataclasses
import pickle

import pytest
import torch
from torch import nn

from bpc.scores import MaskSet
from bpc.scores.attach import attach_masks, detach_masks, is_masked
from tests.bpc.scores.plans import FFN, SETTINGS, ffn_plans


def test_deep_copies_have_masks_of_their_own() -> None:
    model = FFN()
    MaskSet(ffn_plans(), SETTINGS).attach(model)
    twin = copy.deepcopy(model).eval()
    model.eval()
    with torch.no_grad():
        twin.block_masks.scores["up/weight"].fill_(-5.0)
    assert (twin.up.weight == 0).all()
    assert (model.up.weight != 0).any()


def test_a_masked_model_can_be_pickled() -> None:
    """Processes that are spawned get models that way, and so does torch.save."""
    model = FFN()
    masks = MaskSet(ffn_plans(), SETTINGS)
    masks.attach(model)
    with torch.no_grad():
        masks.scores["up/weight"][:2] = -5.0
    twin = pickle.loads(pickle.dumps(model))
    x = torch.randn(3, 4)
    model.eval()
    twin.eval()
    assert torch.equal(twin(x), model(x))
    with torch.no_grad():
        twin.block_masks.scores["up/weight"].fill_(-5.0)
    assert (twin.up.weight == 0).all()
    assert (model.up.weight != 0).any()
    twin.block_masks.detach(twin)
    assert type(twin.up) is nn.Linear


def test_detach_gives_the_plain_model_back() -> None:
    model = FFN()
    weight, names = model.up.weight, list(model.state_dict())
    masks = MaskSet(ffn_plans(), SETTINGS)
    masks.attach(model)
    masks.detach(model)
    assert type(model.up) is nn.Linear
    assert model.up.weight is weight
    assert list(model.state_dict()) == names


def test_unknown_parameters_and_second_masks_leave_the_model_untouched() -> None:
    model = FFN()
    wrong = dataclasses.replace(ffn_plans()[1], weight="nowhere.weight")
    with pytest.raises(KeyError, match=r"nowhere\.weight"):
        MaskSet([ffn_plans()[0], wrong], SETTINGS).attach(model)
    assert not any(is_masked(module) for module in model.modules())
    MaskSet(ffn_plans(), SETTINGS).attach(model)
    with pytest.raises(ValueError, match="masked already"):
        MaskSet(ffn_plans(), SETTINGS).attach(model)


def test_a_tied_parameter_is_masked_under_every_name() -> None:
    model = nn.ModuleDict({"one": nn.Linear(2, 2), "two": nn.Linear(2, 2)})
    model["two"].weight = model["one"].weight
    attach_masks(model, {"two.weight": nn.Threshold(10.0, 0.0)})  # reads as zero
    assert (model["one"].weight == 0).all()
    assert (model["two"].weight == 0).all()
    assert (model["one"].bias != 0).all()
    detach_masks(model)
    assert (model["one"].weight != 0).all()
