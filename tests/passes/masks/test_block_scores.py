"""Block scores of fine-pruned checkpoints: every layout, every binarizer, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import passes
from passes.masks import BlockScores, MaskError
from passes.masks.block_scores import from_run_directory

SHAPES: dict[str, tuple[int, ...]] = {"up.weight": (8, 4), "up.bias": (8,), "down.weight": (4, 8), "down.bias": (4,)}
GRID = torch.tensor([[3.0, -3.0], [-3.0, -3.0], [0.1, 2.0], [-3.0, 4.0]])
KEPT = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=torch.bool)


@pytest.mark.parametrize(
    "key",
    [
        "up.mask_scores",
        "up.mask_module.context_modules.0.mask_scores",
        "up.mask_module.mask_context_modules.0.mask_scores",
        "up.mask_context_modules.0.mask_scores",
    ],
)
def test_a_grid_of_scores_masks_blocks_in_every_layout(key: str) -> None:
    masks = BlockScores({key: GRID, "up.weight": torch.randn(8, 4)}, threshold=0.1).masks(SHAPES)
    expected = KEPT.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(masks["up.weight"], expected)
    assert torch.equal(masks["up.bias"], expected.any(1))
    assert set(masks) == {"up.weight", "up.bias"}


def test_row_and_column_scores_share_one_tensor_between_two_linears() -> None:
    """The FFN layout: rows of the first matrix and columns of the second are scored by one module."""
    scores = torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, 3.0, -3.0, 3.0])
    tensors = {
        "up.mask_module.context_modules.0.mask_scores": scores,
        "down.mask_module.context_modules.1.mask_scores": scores,
    }
    masks = BlockScores(tensors, threshold=0.1).masks(SHAPES)
    assert torch.equal(masks["up.weight"], (scores > 0)[:, None].expand(8, 4))
    assert torch.equal(masks["down.weight"], (scores > 0)[None].expand(4, 8))
    assert bool(masks["down.bias"].all())


def test_rows_times_columns() -> None:
    rows, columns = torch.tensor([2.0, -2.0]), torch.tensor([1.0, 3.0, -1.0, 5.0])
    tensors = {f"up.mask_module.context_modules.{i}.mask_scores": t for i, t in enumerate((rows, columns))}
    mask = BlockScores(tensors, threshold=0.0, method="threshold").masks(SHAPES)["up.weight"]
    assert torch.equal(mask, (rows[:, None] * columns > 0).repeat_interleave(4, 0))


def test_top_k_keeps_the_highest() -> None:
    mask = BlockScores({"up.mask_scores": GRID}, threshold=0.25, method="topk").masks(SHAPES)["up.weight"]
    assert mask[::2, ::2].tolist() == [[True, False], [False, False], [False, False], [False, True]]


def test_a_floor_keeps_the_highest_scores_where_all_would_go() -> None:
    scores = -torch.arange(1.0, 33.0).view(8, 4) - 100
    kept = BlockScores({"up.mask_scores": scores}, threshold=0.1, min_keep=0.1).masks(SHAPES)["up.weight"]
    assert kept.flatten().nonzero().flatten().tolist() == [0, 1, 2, 3]  # int(0.1 * 32) + 1
    none = BlockScores({"up.mask_scores": scores}, threshold=0.1, min_keep=0).masks(SHAPES)["up.weight"]
    assert not bool(none.any())


def test_biases_stay_when_asked() -> None:
    assert set(BlockScores({"up.mask_scores": GRID}, threshold=0.1, bias=False).masks(SHAPES)) == {"up.weight"}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"up.mask_scores": GRID.where(GRID > 0, torch.nan)}, "'up.mask_scores' holds NaN"),
        ({"up.mask_scores": torch.zeros(3, 2)}, r"'up.weight' of shape \(8, 4\) does not divide"),
        ({"left.mask_scores": GRID}, "'left.mask_scores': the traced model has no weight"),
        ({"up.ampere_module.context_module.mask_scores": torch.zeros(4, 2, 6)}, "'up.weight' has a 2:4 pattern"),
        ({"up.mask_scores": torch.zeros(4, 2, 6)}, r"'up.weight' has scores of shapes 0: \(4, 2, 6\)"),
        ({"up.weight": torch.zeros(8, 4)}, "no tensor is named mask_scores"),
        ({"up.mask_scores": (GRID > 0)}, "'up.mask_scores' is torch.bool; scores are real numbers"),
    ],
)
def test_refusals_name_the_parameter(tensors: dict[str, torch.Tensor], reason: str) -> None:
    with pytest.raises(MaskError, match=reason):
        BlockScores(tensors, threshold=0.1).masks(SHAPES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"final_threshold": NaN}', "NaN is no finite number"),
        ('{"final_threshold": "high"}', r"final_threshold: .*\(got 'high'\)"),
        ('{"dense_pruning_method": 3}', r"dense_pruning_method: .*\(got 3\)"),
        ('{"linear_min_parameters": 2}', r"linear_min_parameters: .*\(got 2\)"),
        ("[]", "is damaged"),
    ],
)
def test_options_of_a_run_that_are_damaged_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sparse_args.json").write_text(text)
    with pytest.raises(MaskError, match=rf"sparse_args\.json is damaged: .*{message}" if text != "[]" else message):
        from_run_directory(tmp_path)


def test_a_threshold_is_a_finite_number() -> None:
    with pytest.raises(MaskError, match="threshold nan: give a finite number"):
        BlockScores({"up.mask_scores": GRID}, threshold=float("nan")).masks(SHAPES)


def test_unknown_methods_are_named() -> None:
    method: Any = "l0"
    with pytest.raises(MaskError, match="'l0': choose one of sigmoid"):
        BlockScores({"up.mask_scores": GRID}, threshold=0.1, method=method).masks(SHAPES)


class Ffn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


SCORES = {
    "up.mask_module.context_modules.0.mask_scores": torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, 3.0, -3.0, 3.0]),
    "down.mask_module.context_modules.1.mask_scores": torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, 3.0, -3.0, 3.0]),
}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_checkpoint_file_shrinks_the_model(tmp_path: Path, name: str) -> None:
    model = Ffn()
    file = tmp_path / name
    if file.suffix == ".bin":
        torch.save(model.state_dict() | SCORES, file)
    else:
        save_file(model.state_dict() | {k: v.clone() for k, v in SCORES.items()}, file)
    graph = passes.trace(model, torch.randn(3, 4))
    with pytest.raises(MaskError, match="say how to read them"):
        passes.shrink(graph, file)
    result = passes.shrink(graph, BlockScores(file, threshold=0.1))
    assert result.report.parameters_after == 5 * 4 + 5 + 4 * 5 + 4
    options = {
        "final_threshold": 0.1,
        "attention_pruning_method": "disabled",
        "dense_pruning_method": "sigmoied_threshold:1d_alt",
        "bias_mask": True,
    }
    (tmp_path / "sparse_args.json").write_text(json.dumps(options))
    found = from_run_directory(file)
    assert found is not None
    assert (found.threshold, found.method, found.bias, found.min_keep) == (0.1, "sigmoid", True, 0.005)
    assert passes.shrink(graph, tmp_path).report == result.report


def test_two_binarizers_in_one_run_are_refused(tmp_path: Path) -> None:
    options = {"final_threshold": 0.1, "attention_pruning_method": "topK", "dense_pruning_method": "threshold"}
    (tmp_path / "sparse_args.json").write_text(json.dumps(options))
    with pytest.raises(MaskError, match="one binarizer"):
        from_run_directory(tmp_path)
