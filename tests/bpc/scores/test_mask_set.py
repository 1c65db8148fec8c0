import copy
import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bpc.scores import BlockMask, MaskPlan, MaskSet, MaskSettings, Schedule
from bpc.scores.attach import is_masked
from bpc.scores.files import save_masks
from bpc.scores.structure import live_structure
from passes import MaskError
from passes.structure.role import Role


def ffn_plans() -> list[MaskPlan]:
    """up (6 x 4) and down (4 x 6) share one score per dim."""
    common = {"scores": "up.weight", "group": "ffn", "out_dim": 0, "part": "ffn.0"}
    return [
        MaskPlan("up.weight", "up.bias", (6, 4), (1, 4), transposed=False, role=Role.FFN_UP, **common),
        MaskPlan("down.weight", None, (4, 6), (4, 1), transposed=True, role=Role.FFN_DOWN, **common),
    ]


def attention_plans() -> list[MaskPlan]:
    """Four heads of two dims, blocks of 2 x 2."""
    plans = []
    for name in ("query", "key", "value", "output"):
        weight = f"{name}.weight"
        plans.append(
            MaskPlan(weight, f"{name}.bias", (8, 8), (2, 2), weight, False, 0, Role(f"attention.{name}"), "attention",
                     part="attention.0", heads=4)
        )  # fmt: skip
    return plans


class FFN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


SETTINGS = MaskSettings(schedule=Schedule(0.0, 0.1, 0.0, 0.0), regularization={"ffn": 20.0, "attention": 10.0})


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
    plan = MaskPlan("gate_up.weight", None, (8, 4), (1, 4), "s", False, 0, Role.FFN_GATE_UP, "ffn", tiles=2)
    masks = MaskSet([plan], SETTINGS)
    with torch.no_grad():
        masks.scores["s"][1] = -5.0
    assert masks.masks()["gate_up.weight"][:, 0].tolist() == [True, False, True, True] * 2


def test_bias_of_a_row_dies_with_its_last_block_only() -> None:
    plan = attention_plans()[0]
    scores = nn.Parameter(torch.zeros(4, 4))
    mask = BlockMask(plan, scores, schedule=SETTINGS.schedule)
    with torch.no_grad():
        scores[1] = -5.0
        scores[2, 1:] = -5.0
    assert mask.bias_mask().tolist() == [True, True, False, False, True, True, True, True]


def test_output_features_in_the_second_dim_mask_the_bias_by_columns() -> None:
    plan = dataclasses.replace(attention_plans()[0], out_dim=1)  # a Conv1D
    scores = nn.Parameter(torch.zeros(4, 4))
    with torch.no_grad():
        scores[:, 3] = -5.0
    assert BlockMask(plan, scores).bias_mask().tolist() == [True] * 6 + [False] * 2


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


def test_scores_that_are_nan_are_no_masks() -> None:
    masks = MaskSet(ffn_plans(), SETTINGS)
    with torch.no_grad():
        masks.scores["up/weight"][3] = torch.nan
    with pytest.raises(MaskError, match=r"scores of up\.weight .*NaN: the training diverged"):
        masks.masks()


def test_masks_of_one_tensor_under_two_names_are_written(tmp_path: Path) -> None:
    mask = torch.tensor([True, False])
    save_masks({"a": mask, "b": mask}, tmp_path / "masks.safetensors")
    assert torch.equal(load_file(tmp_path / "masks.safetensors")["b"], mask)


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
    plans = [dataclasses.replace(ffn_plans()[0], block=(2, 4))]
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


def test_score_shapes_that_do_not_fit_name_the_weight() -> None:
    with pytest.raises(ValueError, match=r"up\.weight"):
        BlockMask(ffn_plans()[0], nn.Parameter(torch.zeros(2, 2)))


def test_live_structure_counts_heads_and_dims() -> None:
    masks = MaskSet([*ffn_plans(), *attention_plans()], SETTINGS)
    with torch.no_grad():
        masks.scores["up/weight"][:2] = -5.0
        masks.scores["value/weight"][0] = -5.0  # head 0: no value
        masks.scores["output/weight"][:, 3] = -5.0  # head 3: nobody reads it
        masks.scores["query/weight"][1] = -5.0  # head 1 attends uniformly: alive
    structure = live_structure(masks, final=True)
    assert (structure.heads, structure.total_heads) == ((2,), (4,))
    assert (structure.ffn_dims, structure.total_ffn_dims) == ((4,), (6,))
    assert live_structure(masks).heads == (4,), "nothing is pruned at the first threshold"
    assert masks.density(final=True) == pytest.approx((2 * 24 * 4 / 6 + 64 * 4 - 3 * 16) / (48 + 64 * 4))
