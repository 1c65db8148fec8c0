"""What the checker runs on, and how it measures rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bpc.verify.runs import Inputs, Unusable, Watch, distance, floors, inputs_like, outputs_of

IDS, MASK = torch.tensor([[5, 9, 2], [4, 4, 4]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
EXAMPLE = ((), {"input_ids": IDS, "attention_mask": MASK})


def test_inputs_are_the_example_then_random_ones_of_the_recorded_sizes() -> None:
    shapes = ["example", "4x6, 4x6", "4x6", "2x3, 2x3"]
    given = list(inputs_like(EXAMPLE, shapes, False, 0))
    assert [one.name for one in given] == ["the example 2x3, 2x3", "2x3, 2x3", "4x6, 4x6"]
    assert torch.equal(given[0].kwargs["attention_mask"], MASK)
    ids, mask = given[2].kwargs["input_ids"], given[2].kwargs["attention_mask"]
    assert ids.shape == (4, 6)
    assert 0 <= int(ids.min()) <= int(ids.max()) <= 9
    assert bool(mask[:, :5].all())  # every row sees a key
    again = list(inputs_like(EXAMPLE, shapes, False, 0))
    assert torch.equal(again[2].kwargs["input_ids"], ids)


def test_rows_that_see_no_key_are_avoided() -> None:
    padded = ((), {"attention_mask": torch.tensor([[0, 1], [1, 1]])})  # on the left
    assert bool(next(inputs_like(padded, [], False, 0)).kwargs["attention_mask"].all())
    assert bool(next(inputs_like(EXAMPLE, [], True, 0)).kwargs["attention_mask"].all())


def test_every_channel_has_its_own_floor() -> None:
    exact = torch.tensor([[1e6, 1.0], [1e6, -1.0]], dtype=torch.float64)
    rough = exact.float() + torch.tensor([[0.06, 0.0], [0.0, 0.0]])
    ((floor,),) = floors([[exact]], [[rough]])
    assert distance(exact, exact + torch.tensor([0.06, 0.0]), floor) < 1.1
    assert distance(exact, exact * torch.tensor([1.0, 1.06]), floor) > 1e4  # beside an outlier, six per cent are many
    assert distance(exact, exact * torch.nan, floor) == torch.inf
    assert distance(exact * 0, exact * 0, floor * 0) == 0


def test_scaling_the_outputs_changes_nothing() -> None:
    exact = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for scale in (1.0, 2.0**-20):
        ((floor,),) = floors([[exact * scale]], [[(exact * scale).float()]])
        found.append(distance(exact * scale, exact * scale * 1.06, floor))
    assert found[0] == pytest.approx(found[1])
    assert found[0] > 1e4


def test_channels_of_every_product_with_a_weight_are_watched() -> None:
    for layer in (nn.Linear(3, 2), nn.Linear(3, 2, bias=False)):
        with Watch({"w": layer.weight}) as watch, torch.no_grad():
            layer(torch.tensor([[[1.0, 2.0, 3.0]]]))
            layer(torch.tensor([[1.0, 5.0, -3.0]]))
        low, high = watch.seen["w"]
        assert low.tolist() == [1, 2, -3]
        assert high.tolist() == [1, 5, 3]


def test_what_a_forward_raises_becomes_the_named_fault() -> None:
    with pytest.raises(Unusable, match="Linear fails on x in its own precision: RuntimeError"):
        outputs_of(nn.Linear(3, 2), Inputs("x", (torch.ones(1, 4),), {}))
    with pytest.raises(Unusable, match=r"what Linear makes of x in torch\.float64 is not finite"):
        outputs_of(nn.Linear(3, 2).double(), Inputs("x", (torch.full((1, 3), torch.inf),), {}), torch.float64)
