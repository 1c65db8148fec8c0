"""Masks in memory and in files: what is taken, what is refused, and that a refusal writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import passes
from passes.masks import MaskError, resolve_masks
from passes.masks.files import INDEX, TensorFile

KEEP = torch.tensor([True, False, True, True, False, True])


class Tied(nn.Module):
    """An FFN whose output layer is tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.down(torch.relu(self.up(self.embedding(ids)))))


@pytest.fixture
def model() -> Tied:
    torch.manual_seed(0)
    return Tied()


@pytest.fixture
def graph(model: Tied) -> torch.fx.GraphModule:
    return passes.trace(model, torch.randint(0, 9, (2, 5)))


def rows() -> dict[str, torch.Tensor]:
    return {"up.weight": KEEP[:, None].expand(6, 4).contiguous(), "up.bias": KEEP.clone()}


def test_masks_in_memory_and_in_a_file_do_the_same(graph: torch.fx.GraphModule, tmp_path: Path) -> None:
    save_file(rows(), tmp_path / "masks.safetensors")
    torch.save(rows(), tmp_path / "masks.pt")
    expected = passes.shrink(graph, rows())
    assert expected.plan.cuts[0].keep == {0: (0, 2, 3, 5)}
    for name in ("masks.safetensors", "masks.pt"):
        assert passes.shrink(graph, tmp_path / name).plan == expected.plan
        assert passes.shrink(graph, str(tmp_path / name)).report == expected.report


def test_zeros_in_the_weights_are_masks(model: Tied) -> None:
    with torch.no_grad():
        model.up.weight[1], model.up.bias[1] = 0, 0
    result = passes.shrink(passes.trace(model, torch.randint(0, 9, (2, 5))))
    assert result.plan.small_shape("up.weight", (6, 4)) == (5, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"masks": rows()}, "one level down, under 'masks'"),
        ({}, "holds no tensors"),
        ({"epoch": 3}, "holds no tensors"),
    ],
)
def test_files_without_masks_are_refused(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "masks.pt")
    with pytest.raises(MaskError, match=message):
        TensorFile(tmp_path / "masks.pt")


@pytest.mark.parametrize("text", ["{}", '{"weight_map": 3}', "[]", "{"])
def test_json_that_is_no_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(MaskError, match="no index of a sharded checkpoint"):
        TensorFile(tmp_path / "config.json")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"up.weight": torch.ones(4, 6, dtype=torch.bool)}, r"'up.weight' has shape \(4, 6\); .* \(6, 4\)"),
    "unknown": ({"up.wieght": torch.ones(6, 4, dtype=torch.bool)}, "'up.wieght': .* did you mean 'up.weight'"),
    "prefix": ({"bert.up.weight": torch.ones(6, 4, dtype=torch.bool)}, "did you mean 'up.weight'"),
    "integers": ({"up.weight": torch.ones(6, 4, dtype=torch.int64)}, "'up.weight' is torch.int64; pass a bool"),
    "floats": ({"up.weight": torch.ones(6, 4)}, "'up.weight' is torch.float32; pass a bool"),
    "list": ({"up.weight": [[1]]}, "'up.weight' is list; pass a bool"),
    "tied": ({"head.weight": torch.ones(9, 4, dtype=torch.bool)}, "'head.weight': .* tied to 'embedding.weight'"),
    "tied otherwise": (
        {
            "head.weight": torch.ones(9, 4, dtype=torch.bool),
            "embedding.weight": torch.zeros(9, 4, dtype=torch.bool),
        },
        "disagrees",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_refusals_name_the_parameter_and_write_nothing(model: Tied, graph: torch.fx.GraphModule, name: str) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    text = str(graph.graph)
    wrong, reason = WRONG[name]
    with pytest.raises(MaskError, match=reason):
        passes.shrink(graph, rows() | wrong)
    assert str(graph.graph) == text
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_tied_weight_is_masked_under_both_names(graph: torch.fx.GraphModule) -> None:
    mask = torch.rand(9, 4) > 0.5
    assert len(resolve_masks(graph, {"head.weight": mask, "embedding.weight": mask.clone()})) == 1


def test_float_files_are_no_masks(graph: torch.fx.GraphModule, tmp_path: Path) -> None:
    save_file({"up.weight": torch.ones(6, 4)}, tmp_path / "model.safetensors")
    with pytest.raises(MaskError, match=r"'up.weight' is torch.float32.*pass masks=None"):
        passes.shrink(graph, tmp_path)


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


def test_nothing_is_unpickled(graph: torch.fx.GraphModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"up.weight": torch.ones(6, 4, dtype=torch.bool), "extra": Payload()}, tmp_path / "masks.pt")
    with pytest.raises(MaskError, match="not unpickled"):
        passes.shrink(graph, tmp_path / "masks.pt")
    assert "unpickled" not in capsys.readouterr().out


def test_broken_and_missing_files_are_named(graph: torch.fx.GraphModule, tmp_path: Path) -> None:
    (tmp_path / "masks.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(MaskError, match="is no safetensors file"):
        passes.shrink(graph, tmp_path / "masks.safetensors")
    with pytest.raises(MaskError, match="does not exist"):
        passes.shrink(graph, tmp_path / "other.safetensors")
    with pytest.raises(MaskError, match="holds neither"):
        TensorFile(tmp_path)


def test_sharded_checkpoints_are_read_tensor_by_tensor(tmp_path: Path) -> None:
    parts = {"a-1.safetensors": {"x": torch.ones(2)}, "a-2.safetensors": {"y": torch.zeros(3)}}
    for file, tensors in parts.items():
        save_file(tensors, tmp_path / file)
    table = {name: file for file, tensors in parts.items() for name in tensors}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": table}))
    tensors = TensorFile(tmp_path)
    assert set(tensors) == {"x", "y"}
    assert torch.equal(tensors["y"], torch.zeros(3))
