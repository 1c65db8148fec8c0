"""shrink-dims: it fires (golden text), refuses with the reason, is idempotent, and preserves numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from passes.frontend.trace import trace
from passes.ir.graph import get_attribute
from passes.ops.facts import Axis
from passes.rewrite.apply_masks import ApplyMasks
from passes.rewrite.fold_constants import FoldConstants
from passes.rewrite.retrace import Retrace
from passes.rewrite.shrink_dims import ShrinkDims
from tests.passes.golden_text import printed
from tests.passes.properties.tiny import Shape, build, inputs, random_masks

HEADS = Shape(layers=1, heads=3, kv_heads=3, head_dim=2, width=4, ffn=3, rms=True)
MASKS = {
    "layers.0.attention.v.weight": torch.tensor([1, 1, 0, 0, 1, 1])[:, None].expand(6, 4).bool(),
    "layers.0.attention.v.bias": torch.tensor([1, 1, 0, 0, 1, 1]).bool(),
    "layers.0.ffn.up.weight": torch.tensor([0, 1, 1])[:, None].expand(3, 4).bool(),
}


def prepared(shape: Shape, masks: dict[str, torch.Tensor]) -> torch.fx.GraphModule:
    """What the pass requires: masks applied, constants folded."""
    masked = ApplyMasks(masks).run(trace(build(shape), inputs())).graph_module
    return FoldConstants().run(masked).graph_module


def test_head_1_and_ffn_dim_0_go(golden: Callable[[str, str], None]) -> None:
    result = ShrinkDims().run(prepared(HEADS, MASKS))
    assert result.modified
    keep = {cut.parameter: dict(cut.keep) for cut in result.facts["cuts"]}
    assert keep["layers.0.attention.q.weight"] == {0: (0, 1, 4, 5)}
    assert keep["layers.0.attention.out.weight"] == {1: (0, 1, 4, 5)}
    assert keep["layers.0.ffn.down.weight"] == {1: (1, 2)}
    golden("shrink_dims", printed(Retrace().run(result.graph_module).graph_module))


class Normalised(nn.Module):
    """Feature 0 is dead, but a mean over fewer features would be another mean."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2)
        with torch.no_grad():
            self.up.weight[0], self.up.bias[0], self.norm.weight[0], self.norm.bias[0] = 0, 0, 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.norm(self.up(x)))


class Unknown(nn.Module):
    """A cumulative product has no transfer rule."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2, 3), nn.Linear(3, 2)
        with torch.no_grad():
            self.up.weight[0], self.down.weight[:, 0] = 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x).cumprod(-1))


@pytest.mark.parametrize(
    ("model", "reason"),
    [(Normalised(), "normalised by layer_norm"), (Unknown(), "used by an operator without a transfer rule")],
)
def test_it_refuses_with_the_reason(model: nn.Module, reason: str) -> None:
    graph = FoldConstants().run(trace(model, torch.randn(4, 2))).graph_module
    result = ShrinkDims().run(graph)
    assert not result.modified
    assert result.facts["analysis"].coupling.reason(Axis("@up.weight", 0)) == reason


class Grouped(nn.Module):
    """Four groups of a convolution: each reads two channels and writes three."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(5, 8), nn.Linear(12, 5)
        self.mix = nn.Conv1d(8, 12, 3, padding=1, groups=4)
        with torch.no_grad():
            for weight in (self.up.weight, self.up.bias):
                weight.view(4, 2, -1)[:, 0] = 0  # the first channel of every group, and both of the last
                weight[6:] = 0
            self.down.weight.view(5, 4, 3)[:, 1] = 0  # nobody reads group 1
            self.down.weight.view(5, 4, 3)[:, 0, 2] = 0  # channel 2 of group 0: the other groups need theirs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.tanh(self.mix(self.up(x).transpose(1, 2))).transpose(1, 2))


def test_groups_of_a_convolution_go() -> None:
    """The last group reads zeros alone: it is a constant, which the next linear's bias absorbs."""
    graph, x = FoldConstants().run(trace(Grouped(), torch.randn(2, 7, 5))).graph_module, torch.randn(3, 4, 5)
    result = ShrinkDims().run(graph).graph_module
    assert get_attribute(result, "up.weight").shape == (2, 5)
    assert get_attribute(result, "mix.weight").shape == (6, 1, 3)
    torch.testing.assert_close(result(x), graph(x))


class Folded(nn.Module):
    """The second linear reads constants only, so the third does too: what the second folds, the third sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.mid, self.down = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        with torch.no_grad():
            self.up.weight[:4] = 0
            self.mid.weight[:, 4:] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.mid(torch.tanh(self.up(x)))))


def test_what_is_cut_is_folded_by_the_same_facts() -> None:
    """Nothing was folded before: the pass folds what its own analysis calls constant, and says so."""
    graph, x = trace(Folded().double(), torch.randn(2, 4).double()), torch.randn(3, 4).double()
    result = ShrinkDims().run(graph)
    assert {fold.weight for fold in result.facts["folds"]} == {"mid.weight", "down.weight"}
    assert get_attribute(result.graph_module, "down.weight").shape[1] == 1
    torch.testing.assert_close(result.graph_module(x), graph(x), rtol=1e-12, atol=1e-12)


def test_nothing_is_left_to_fold() -> None:
    assert ShrinkDims().run(prepared(HEADS, MASKS)).facts["folds"] == []


class Doubled(nn.Module):
    """Every feature twice, and the first of them all added to each: the slice reads what a choice of features gives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(6, 4), nn.Linear(8, 3)
        with torch.no_grad():
            self.down.weight[:, 4] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        twice = self.up(x).repeat_interleave(2, -1)
        return self.down(twice[:, :1] + twice * 0.5)


def test_a_resize_reads_a_choice_that_the_pass_made() -> None:
    graph, x = trace(Doubled(), torch.randn(3, 5, 6)), torch.randn(2, 7, 6)
    small = ShrinkDims().run(graph).graph_module
    assert get_attribute(small, "down.weight").shape == (3, 7)
    torch.testing.assert_close(small(x), graph(x))


class Repeated(nn.Module):
    """Two key heads serve three query heads each; of the second one's, only the first is read."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.down = nn.Linear(4, 4), nn.Linear(12, 4)
        with torch.no_grad():
            self.down.weight[:, 8:] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.tanh(self.keys(x).unflatten(-1, (2, 2)).repeat_interleave(3, 1)).flatten(1))


def test_a_repetition_that_became_a_choice_of_heads_is_gone() -> None:
    torch.manual_seed(0)
    graph, x = trace(Repeated(), torch.randn(3, 4)), torch.randn(5, 4)
    small = ShrinkDims().run(graph).graph_module
    targets = [n.target for n in small.graph.nodes]
    assert torch.ops.aten.index_select.default in targets
    assert torch.ops.aten.repeat_interleave.self_int not in targets
    torch.testing.assert_close(small(x), graph(x))


def test_the_replaced_graph_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[bool] = []
    monkeypatch.setattr("passes.ir.graph._WORTH_COLLECTING", 0)
    monkeypatch.setattr("passes.ir.graph.gc.collect", lambda: collected.append(True))
    ShrinkDims().run(prepared(HEADS, MASKS))
    assert len(collected) == 2  # of prepared's fold and ours


def test_shrinking_again_changes_nothing() -> None:
    once = Retrace().run(ShrinkDims().run(prepared(HEADS, MASKS)).graph_module).graph_module
    again = ShrinkDims().run(once)
    assert not again.modified
    assert again.facts["cuts"] == ()


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_it_preserves_numbers(attention: str) -> None:
    shape = Shape(layers=2, heads=3, kv_heads=3, head_dim=4, ffn=8, gated=True, fused=True, attention=attention)
    masks = random_masks(build(shape), {"qkv": "rows", "up": "rows", "out": "blocks"}, 3, 0.5, biases=True)
    graph = prepared(shape, masks)
    result = ShrinkDims().run(graph)
    assert result.modified
    for seed, length in ((0, 3), (1, 6)):
        example = inputs(seed, 2, length)
        torch.testing.assert_close(result.graph_module(**example), graph(**example), rtol=1e-12, atol=1e-12)
