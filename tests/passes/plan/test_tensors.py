"""Small tensors one at a time, against masking, folding and cutting whole tensors by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch

from passes.plan.data import Cut, Fold, PlanData
from passes.plan.errors import ModuleViewError
from passes.plan.tensors import SmallTensors

PLAN = PlanData(
    cuts=(
        Cut("up.weight", (6, 4), {0: (0, 2, 5)}, cleared=(2, 3), cleared_dim=0),
        Cut("down.weight", (3, 6), {1: (0, 2, 5)}),
        Cut("lone", (2,), {0: (1,)}),
    ),
    folds=(
        Fold("down.weight", "down.bias", False, 1, (1, 2), (0.5, -2.0)),
        Fold("next.weight", "next.bias", True, 0, (3,), (3.0,)),
        Fold("still.weight", "still.bias", True, 1, (0,), (1.0,)),
    ),
    aliases={"tied": "up.weight"},
)


class Counted(Mapping[str, torch.Tensor]):
    """Weights that remember what was read."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        sizes = {"up.weight": (6, 4), "down.weight": (3, 6), "down.bias": (3,), "next.weight": (4, 5), "other": (2, 2)}
        self.tensors = {name: torch.randn(size).bfloat16() for name, size in sizes.items()}
        self.tensors["still.weight"] = torch.zeros(2, 2)
        self.read: list[str] = []

    def __getitem__(self, name: str) -> torch.Tensor:
        self.read.append(name)
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def test_tensors_are_what_whole_ones_become() -> None:
    weights = Counted()
    masks = {"tied": torch.rand(6, 4) > 0.3, "down.weight": torch.rand(3, 6) > 0.3, "other": torch.eye(2).bool()}
    small = SmallTensors(PLAN, weights, masks)
    full = {name: tensor.clone() for name, tensor in weights.tensors.items()}
    for name, mask in (("up.weight", masks["tied"]), ("down.weight", masks["down.weight"]), ("other", masks["other"])):
        full[name][~mask] = 0
    shift = full["down.weight"][:, [1, 2]].double() @ torch.tensor([0.5, -2.0]).double()
    full["down.bias"] = (full["down.bias"].double() + shift).bfloat16()
    full["next.bias"] = (3.0 * full["next.weight"][3].double()).bfloat16()
    full["down.weight"][:, [1, 2]] = 0
    full["next.weight"][3] = 0
    full["up.weight"][[2, 3]] = 0
    expected = {
        "up.weight": full["up.weight"][[0, 2, 5]],
        "down.weight": full["down.weight"][:, [0, 2, 5]],
        **{name: full[name] for name in ("down.bias", "next.weight", "next.bias", "other", "still.weight")},
    }
    assert small.biases == {"next.bias"}  # the other one would be all zero
    assert set(small) == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(small[name], tensor), name
        assert small[name].dtype == tensor.dtype
    weights.read.clear()
    assert ("up.weight" in small, "tied" in small) == (True, False)
    assert small["up.weight"].shape == (3, 4)
    assert weights.read == ["up.weight"]


def test_on_the_meta_device_it_has_to_be_told_which_biases_there_are() -> None:
    weights = {name: tensor.to("meta") for name, tensor in Counted().tensors.items()}
    small = SmallTensors(PLAN, weights, {}, biases={"next.bias"})
    assert {name: tuple(tensor.shape) for name, tensor in small.items()} == {
        "up.weight": (3, 4),
        "down.weight": (3, 3),
        "down.bias": (3,),
        "next.weight": (4, 5),
        "next.bias": (5,),
        "still.weight": (2, 2),
    }


def test_what_does_not_fit_is_named() -> None:
    weights = Counted()
    del weights.tensors["down.bias"]
    with pytest.raises(ModuleViewError, match=r"there is no 'down\.bias', which the plan changes"):
        SmallTensors(PLAN, weights, {})
    weights = Counted()
    weights.tensors["up.weight"] = torch.ones(5, 4)
    with pytest.raises(ModuleViewError, match=r"up.weight has shape \(5, 4\); the plan was made for \(6, 4\)"):
        SmallTensors(PLAN, weights, {})["up.weight"]
    weights = Counted()
    weights.tensors["down.weight"] = torch.ones(2)
    with pytest.raises(ModuleViewError, match=r"down.weight has shape \(2,\), which lacks columns that the plan folds"):
        SmallTensors(PLAN, weights, {}, biases=())["down.weight"]
