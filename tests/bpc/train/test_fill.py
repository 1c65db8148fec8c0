import torch
from torch import nn

from bpc.train import fill_zeros


def test_only_zeros_of_named_weights_change_and_stay_small() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    with torch.no_grad():
        model[0].weight[:32] = 0
        model[1].weight[:2] = 0
    before = model[0].weight.clone()
    assert fill_zeros(model, ["0.weight", "gone.weight"], torch.Generator().manual_seed(1)) == 32 * 64
    after = model[0].weight
    assert torch.equal(after[32:], before[32:])
    assert (after[:32] != 0).all()
    kept = before[32:]
    assert (after[:32] - kept.mean()).std() < 0.02 * kept.std()
    assert (model[1].weight[:2] == 0).all()


def test_nothing_to_fill_changes_nothing() -> None:
    model = nn.Linear(4, 4)
    before = model.weight.clone()
    assert fill_zeros(model, ["weight"]) == 0
    assert torch.equal(model.weight, before)
