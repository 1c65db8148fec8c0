import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bpc.scores import MaskPlan, MaskSet, MaskSettings, Schedule
from passes import MaskError
from passes.structure.role import Role
from tests.bpc.scores.plans import FFN, SETTINGS, attention_plans, ffn_plans


def test_paired_dims_live_and_die_together_and_take_the_bias_along() -> None:
    masks = MaskSet(ffn_plans(), SETTINGS)
    with torch.no_grad():
        masks.scores["up/weight"][[1, 4]] = -5.0
    result = masks.masks()
    dead = torch.tensor([False, True, False, False, True, False])
    assert torch.equal(result["up.weight"], ~dead[:, None].expand(6, 4))
    assert torch.equal(result["down.weight"], ~dead[None, :].expand(4, 6))
    assert torch.equal(result["up.bias"], ~dead)
    assert "down.bias" not in result


def test_fused_halves_share_the_scores_of_one() -> None:
    plan = MaskPlan("gate_up.weight", None, (8, 4), (1, 4), "s", 0, Role.FFN_GATE_UP, "ffn", tiles=2,
                    units=(0, 1, 2, 3) * 2, unit_count=4)  # fmt: skip
    masks = MaskSet([plan], SETTINGS)
    with torch.no_grad():
        masks.scores["s"][1] = -5.0
    assert masks.masks()["gate_up.weight"][:, 0].tolist() == [True, False, True, True] * 2


def test_training_uses_the_current_threshold_and_evaluation_the_final_one() -> None:
    model = FFN()
    masks = MaskSet(ffn_plans(), SETTINGS)
    masks.attach(model)
    with torch.no_grad():
        masks.scores["up/weight"][0] = -5.0
    model.train()
    masks.set_progress(0.0)
    assert model.up.weight[0].abs().sum() > 0
    model.eval()
    assert model.up.weight[0].abs().sum() == 0
    assert not masks.masks()["up.weight"][0].any()
    assert masks.masks(final=False)["up.weight"].all()
    model.train()
    masks.set_progress(1.0)
    assert model.up.weight[0].abs().sum() == 0


def test_regularization_is_the_mean_of_means_by_group() -> None:
    masks = MaskSet([*ffn_plans(), *attention_plans()], SETTINGS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for score in masks.scores.values():
            score.normal_(generator=generator)
    masks.set_progress(0.5)
    ramp = 1 - 0.5**3
    ffn = masks.scores["up/weight"].sigmoid().mean()
    attention = sum(masks.scores[f"{n}/weight"].sigmoid().mean() for n in ("query", "key", "value", "output")) / 4
    expected = ramp * (20.0 / 2 * ffn + 10.0 / 2 * attention)
    torch.testing.assert_close(masks.regularization(), expected)
    masks.set_progress(0.0)
    assert masks.regularization() == 0


def test_attached_model_keeps_its_names_and_computes_with_masked_weights() -> None:
    torch.manual_seed(0)
    model, x = FFN(), torch.randn(3, 4)
    names = list(model.state_dict())
    plain = copy.deepcopy(model)
    masks = MaskSet(ffn_plans(), SETTINGS)
    masks.attach(model)
    with torch.no_grad():
        masks.scores["up/weight"][2:] = -5.0
    masks.set_progress(1.0)
    assert [n for n in model.state_dict() if not n.startswith("block_masks.")] == names
    assert isinstance(model.up, nn.Linear)
    parameters = dict(plain.named_parameters())
    with torch.no_grad():
        for name, mask in masks.masks().items():
            parameters[name].mul_(mask)
    torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)

    model(x).square().sum().backward()
    parameters = dict(model.named_parameters())
    assert (parameters["up.weight"].grad[2:] == 0).all()
    assert (parameters["up.weight"].grad[:2] != 0).any()
    assert (masks.scores["up/weight"].grad != 0).any()


def test_scores_that_are_nan_are_no_masks() -> None:
    masks = MaskSet(ffn_plans(), SETTINGS)
    with torch.no_grad():
        masks.scores["up/weight"][3] = torch.nan
    with pytest.raises(MaskError, match=r"scores of up\.weight .*NaN: the training diverged"):
        masks.masks()


def test_state_dict_round_trip_restores_scores_and_progress(tmp_path: Path) -> None:
    model = FFN()
    masks = MaskSet(ffn_plans(), SETTINGS)
    masks.attach(model)
    masks.set_progress(0.7)
    with torch.no_grad():
        masks.scores["up/weight"].normal_()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = FFN()
    fresh = MaskSet(ffn_plans(), SETTINGS)
    fresh.attach(other)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(fresh.scores["up/weight"], masks.scores["up/weight"])
    assert fresh.threshold == masks.threshold
    assert fresh.block_mask("up.weight").threshold == masks.threshold


def test_magnitude_keeps_the_heaviest_blocks() -> None:
    model = FFN()
    plans = [dataclasses.replace(ffn_plans()[0], block=(2, 4), units=None)]
    settings = MaskSettings(method="magnitude", schedule=Schedule(1.0, 1 / 3, 0.0, 0.0))
    with torch.no_grad():
        model.up.weight[2:4] *= 100
    masks = MaskSet(plans, settings)
    masks.attach(model)
    model.eval()
    assert masks.masks()["up.weight"][:, 0].tolist() == [False, False, True, True, False, False]
    with torch.no_grad():
        dict(model.named_parameters())["up.weight"][:2] *= 10000
    model(torch.randn(1, 4))
    assert masks.masks()["up.weight"][:, 0].tolist() == [True, True, False, False, False, False]


def test_progress_outside_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        MaskSet(ffn_plans(), SETTINGS).set_progress(1.5)


def test_scores_that_were_replaced_are_an_error_at_once() -> None:
    """Masks would go on reading the old ones."""
    masks = MaskSet(ffn_plans(), SETTINGS)
    state = {name: value.clone() for name, value in masks.state_dict().items()}
    masks.load_state_dict(state)
    with pytest.raises(MaskError, match=r"were replaced by other tensors.*no assign=True"):
        masks.load_state_dict(state, assign=True)
