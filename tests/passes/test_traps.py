"""The traps of the theory (docs: exactness), one by one, on modules small enough to count by hand.

Trap 20 (weights too small to matter) is
`test_architectures.test_every_parameter_moves_the_output`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

import passes
from passes.graph import get_attribute
from passes.pipeline import least_precise
from tests.passes.families import FAMILIES, make

aten = torch.ops.aten
H, D, C = 4, 4, 16  # heads, dims per head, channels


class Attention(nn.Module):
    """Residual attention, separate projections. ``form``: sdpa, eager, or a way to serve grouped queries."""

    def __init__(self, form: str = "sdpa", kv_heads: int = H, rotary: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.kv_heads, self.rotary = form, kv_heads, rotary
        self.q, self.o = nn.Linear(C, C), nn.Linear(C, C)
        self.k, self.v = nn.Linear(C, kv_heads * D), nn.Linear(C, kv_heads * D)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, -1, D).transpose(1, 2) for f in (self.q, self.k, self.v))  # (B, heads, N, D)
        if self.rotary:
            angle = torch.arange(n, dtype=x.dtype).unsqueeze(1) * torch.tensor([1.0, 0.1], dtype=x.dtype).repeat(2)
            q, k = (
                y * angle.cos() + torch.cat([-y[..., D // 2 :], y[..., : D // 2]], -1) * angle.sin() for y in (q, k)
            )
        group = H // self.kv_heads
        if self.form == "repeat_interleave":
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        elif self.form == "expand":
            k, v = (y[:, :, None].expand(b, self.kv_heads, group, n, D).reshape(b, H, n, D) for y in (k, v))
        if self.form == "eager":
            mixed = (q @ k.transpose(-1, -2) * D**-0.5).softmax(-1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=self.form == "gqa")
        return x + self.o(mixed.transpose(1, 2).reshape(b, n, C))


def example(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (2, 5, C)), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def shrink(model: nn.Module, masks: dict[str, torch.Tensor], *inputs: torch.Tensor) -> Any:
    """The verified result: `shrink` compares the graphs in float64 to 1e-10 on several shapes."""
    result = passes.shrink(passes.trace(model.double(), inputs or (example(),)), masks)
    assert result.report.agreement is not None
    assert not result.report.agreement.skipped
    return result


def without(rows: int, columns: int = C, gone: Any = (), columns_gone: Any = ()) -> torch.Tensor:
    mask = torch.ones(rows, columns, dtype=torch.bool)
    mask[list(gone)] = False
    mask[:, list(columns_gone)] = False
    return mask


def dead(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(C, C, dtype=torch.bool) for name in names}


def shape(result: Any, name: str) -> tuple[int, ...]:
    return tuple(get_attribute(result.graph_module, name).shape)


def calls(result: Any, target: Any) -> list[fx.Node]:
    return [n for n in result.graph_module.graph.nodes if n.target is target]


def parameters_left(result: Any) -> set[str]:
    return {str(n.target) for n in result.graph_module.graph.nodes if n.op == "get_attr"}


@pytest.mark.parametrize("form", ["sdpa", "eager"])
def test_1_an_empty_query_means_uniform_attention(form: str) -> None:
    result = shrink(Attention(form), dead("q.weight") | {"q.bias": torch.zeros(C, dtype=torch.bool)})
    assert shape(result, "v.weight") == (C, C)
    assert shape(result, "o.weight") == (C, C)


def test_1_a_head_goes_when_its_values_are_constant_or_unread() -> None:
    masks = {"v.weight": without(C, gone=range(4)), "o.weight": without(C, columns_gone=range(4, 8))}
    result = shrink(Attention(), masks)
    assert shape(result, "v.weight") == (2 * D, C)
    assert result.plan.folds[0].columns == (0, 1, 2, 3)  # the values' bias went through the output into its bias


def test_2_the_scale_stays_that_of_the_whole_head() -> None:
    result = shrink(Attention(), {"q.weight": without(C, gone=[0, 4, 8, 12]), "q.bias": torch.arange(C) % 4 > 0})
    (attention,) = calls(result, aten.scaled_dot_product_attention.default)
    assert attention.meta["val"].shape[-1] == D
    assert shape(result, "q.weight") == (H * 3, C)
    assert attention.kwargs["scale"] == D**-0.5


@pytest.mark.parametrize("form", ["sdpa", "eager"])
def test_3_every_head_keeps_its_own_dims(form: str) -> None:
    gone = [0, 1, 6, 7, 8, 9, 10]  # heads keep 2, 2, 1 and 4 dims of the keys; the last one is dead by its values
    masks = {"k.weight": without(C, gone=gone), "v.weight": without(C, gone=[12, 13, 14, 15, 1, 4, 11])}
    result = shrink(Attention(form), masks)
    assert shape(result, "k.weight") == shape(result, "q.weight") == (3 * 2, C)
    assert shape(result, "v.weight") == (3 * 3, C)
    assert shape(result, "o.weight") == (C, 3 * 3)


@pytest.mark.parametrize("name", ["t5", "mpnet"])
def test_4_a_shared_position_bias_is_selected_at_the_use(name: str) -> None:
    model, inputs = make(FAMILIES[name], "eager")
    first, second = FAMILIES[name].attention[:2]
    rows = torch.arange(32) // 8
    masks = {
        first.value.weight: (rows > 0).unsqueeze(1).expand(32, 32),
        second.value.weight: (rows > 1).unsqueeze(1).expand(32, 32),
    }
    masks = {name: mask.clone() for name, mask in masks.items()}
    small = passes.shrink(passes.trace(model, inputs), masks).graph_module
    table, _ = first.tables[0]
    assert get_attribute(small, table).shape == (32, 3)  # the union of what the layers keep
    assert get_attribute(small, first.query.weight).shape[0] == 24
    assert get_attribute(small, second.query.weight).shape[0] == 16
    chosen = [n.meta["val"].shape[n.args[1]] for n in small.graph.nodes if n.target is aten.index_select.default]
    assert chosen == [2]


@pytest.mark.parametrize("form", ["gqa", "expand", "repeat_interleave"])
def test_5_uneven_groups_select_their_key_head(form: str) -> None:
    result = shrink(Attention(form, kv_heads=2), {"o.weight": without(C, columns_gone=range(4))})
    assert shape(result, "q.weight") == (3 * D, C)
    assert shape(result, "k.weight") == (2 * D, C)
    indices = [
        get_attribute(result.graph_module, str(n.args[2].target)) for n in calls(result, aten.index_select.default)
    ]
    assert [i.tolist() for i in indices] == [[0, 1, 1], [0, 1, 1]]  # keys and values


@pytest.mark.parametrize("form", ["gqa", "expand", "repeat_interleave"])
def test_5_even_groups_stay_groups(form: str) -> None:
    result = shrink(Attention(form, kv_heads=2), {"o.weight": without(C, columns_gone=[*range(4), *range(8, 12)])})
    assert shape(result, "q.weight") == shape(result, "k.weight") == (2 * D, C)
    assert not calls(result, aten.index_select.default)


def test_5_a_key_head_goes_with_its_whole_group() -> None:
    result = shrink(Attention("gqa", kv_heads=2), {"v.weight": without(8, gone=[*range(4), 7])})
    assert shape(result, "q.weight") == (2 * D, C)
    assert shape(result, "k.weight") == (D, C)
    assert shape(result, "v.weight") == (3, C)
    assert shape(result, "o.weight") == (C, 2 * 3)


class Fused(nn.Module):
    """One weight, several axes: qkv viewed as (3, H, D); gate and up in one linear; Conv1D stores transposed."""

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv: nn.Module = Conv1D(3 * C, C) if transposed else nn.Linear(C, 3 * C)
        self.o, self.up, self.down = nn.Linear(C, C), nn.Linear(C, 24), nn.Linear(12, C)
        nn.init.normal_(self.qkv.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.o(mixed.transpose(1, 2).reshape(b, n, C))
        gate, up = self.up(x).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


def test_6_fused_projections_keep_different_indices() -> None:
    gone = [*range(0, C, 4), *range(2 * C, 2 * C + 4)]  # dim 0 of every query; the values of head 0
    masks = {"qkv.weight": without(3 * C, gone=gone), "qkv.bias": without(1, 3 * C, columns_gone=gone)[0]}
    masks |= {"up.weight": without(24, gone=[0, 13]), "up.bias": without(1, 24, columns_gone=[0, 13])[0]}
    result = shrink(Fused(), masks)
    assert shape(result, "qkv.weight") == (3 * 3 * 2 + 3 * D, C)  # q and k: 3 heads of 3, v: 3 heads of 4
    assert shape(result, "up.weight") == (20, C)


def test_7_conv1d_stores_its_weight_transposed() -> None:
    gone = range(2 * C, 2 * C + 4)
    result = shrink(Fused(transposed=True), {"qkv.weight": without(C, 3 * C, columns_gone=gone)})
    assert shape(result, "qkv.weight") == (C, 3 * 3 * D)
    assert shape(result, "o.weight") == (C, 3 * D)


class Shared(nn.Module):
    """One FFN used twice; the output layer is the embedding's weight; one matrix with two biases."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(20, C), nn.Linear(C, 20, bias=False)
        self.head.weight = self.embed.weight
        self.up, self.down, self.twin = nn.Linear(C, 12), nn.Linear(12, C), nn.Linear(12, C)
        self.twin.weight = self.down.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        x = x + self.down(functional.gelu(self.up(functional.normalize(x, dim=-1))))
        x = x + self.twin(functional.gelu(self.up(functional.normalize(x, dim=-1))))
        return self.head(
            torch.cat([x[..., :8], torch.zeros_like(x[..., 8:])], -1)
        )  # half of the head's inputs are constant


def ids() -> torch.Tensor:
    return torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0))


def test_8_shared_weights_keep_the_union_of_their_uses() -> None:
    unread = without(C, 12, columns_gone=[5])
    masks = {"up.weight": without(12, gone=[0, 1]), "up.bias": torch.arange(12) > 0}
    masks |= {"down.weight": unread, "twin.weight": unread}
    result = shrink(Shared(), masks, ids())
    # Unit 0 is 0 and unit 5 unread; unit 1 is gelu(bias), which two different biases cannot both absorb.
    assert shape(result, "up.weight") == (10, C)
    tied = {"head.weight", "embed.weight"} & parameters_left(result)
    assert [shape(result, name) for name in tied] == [(20, C)]  # the embedding still needs the head's dead columns


@pytest.mark.parametrize("form", ["sdpa", "eager"])
def test_9_a_dead_sublayer_becomes_its_constant(form: str) -> None:
    model = Attention(form)
    result = shrink(model, dead("v.weight"))
    assert all(name.startswith("constant") for name in parameters_left(result))
    x = example()
    expected = x + functional.linear(model.v.bias, model.o.weight, model.o.bias)
    torch.testing.assert_close(result.graph_module(x), expected, rtol=0, atol=1e-12)


def test_10_rows_that_see_a_key_are_exact() -> None:
    model = Attention()
    visible = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    result = shrink(model, {"v.weight": without(C, gone=range(4))}, example(), visible)
    masked = passes.trace(model, (example(), visible))
    masked.v.weight.data = masked.v.weight.data * without(C, gone=range(4))
    visible[1, :, 3] = False  # PyTorch gives this row 0, not the constant
    expected, actual = masked(example(), visible), result.graph_module(example(), visible)
    differs = ((expected - actual).abs() > 1e-12).any(-1)
    assert differs.nonzero().tolist() == [[1, 3]]


class Overflow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        hidden = torch.cat([hidden[..., :1] * float("inf"), hidden[..., 1:]], -1)
        return self.second(hidden).nan_to_num(0.0)


def test_11_a_masked_weight_times_infinity_is_refused() -> None:
    graph = passes.trace(Overflow().double(), (example(),))
    with pytest.raises(ValueError, match=r"cat is not finite .* channels \[0\], and second.weight has zeros"):
        passes.shrink(graph, {"second.weight": without(C, columns_gone=[0])})
    assert passes.shrink(graph, {}).report.parameters_after  # no zeros meet it: nothing to refuse


def test_12_rotary_dims_go_in_pairs_for_all_heads() -> None:
    pair = [d for head in range(H) for d in (head * D, head * D + 2)]  # dims 0 and 2 rotate into each other
    lonely = [head * D + 1 for head in range(H)]
    gone = without(1, C, columns_gone=[*pair, *lonely])[0]
    masks = {"q.weight": gone.unsqueeze(1).expand(C, C).clone(), "q.bias": gone}
    result = shrink(Attention(rotary=True), masks)
    assert shape(result, "q.weight") == shape(result, "k.weight") == (H * 2, C)


def test_12_a_rotary_pair_one_head_needs_stays() -> None:
    gone = without(1, C, columns_gone=[0, 2])[0]
    masks = {"q.weight": gone.unsqueeze(1).expand(C, C).clone(), "q.bias": gone}
    assert shape(shrink(Attention(rotary=True), masks), "q.weight") == (C, C)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = nn.Linear(8, C), nn.LayerNorm(C), nn.Linear(C, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)))


def test_13_normalised_channels_stay_and_the_report_says_why() -> None:
    result = shrink(Residual(), {"first.weight": without(C, 8, gone=[0, 1])}, example(2, 5, 8))
    assert shape(result, "first.weight") == (C, 8)
    assert result.report.pinned == {"first.weight[0] (2 of 16)": "pinned: normalised by layer_norm"}


def test_14_dead_attention_disappears() -> None:
    result = shrink(Attention(), dead("o.weight"))
    assert not calls(result, aten.scaled_dot_product_attention.default)


class Concatenated(nn.Module):
    """Concatenations of concatenations, a piece of one channel, an output of one channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = nn.Linear(8, 6), nn.Linear(8, 1), nn.Linear(8, 4), nn.Linear(8, 3)
        self.out, self.one = nn.Linear(14, 5), nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.cat([self.a(x), self.b(x)], -1)
        outer = torch.cat([self.c(x), inner, self.d(x)], -1)
        return self.one(torch.tanh(self.out(torch.relu(outer))))


@pytest.mark.parametrize("dead_piece", ["a", "b", "c", "d"])
def test_15_no_empty_tensor_survives(dead_piece: str) -> None:
    model = Concatenated()
    weight = dict(model.named_parameters())[f"{dead_piece}.weight"]
    result = shrink(model, {f"{dead_piece}.weight": torch.zeros_like(weight, dtype=torch.bool)}, example(2, 5, 8))
    assert shape(result, "out.weight") == (5, 14 - len(weight) + 1)  # one index stays, so that modules can follow
    assert shape(result, f"{dead_piece}.weight") == (1, 8)
    values = [n.meta["val"] for n in result.graph_module.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    assert all(size != 0 for value in values for size in value.shape if isinstance(size, int))


def test_15_one_channel_that_is_dead() -> None:
    model = Concatenated()
    result = shrink(model, {"one.weight": torch.zeros(1, 5, dtype=torch.bool)}, example(2, 5, 8))
    assert all(name.startswith("constant") for name in parameters_left(result))


class InPlace(nn.Module):
    def __init__(self, through_a_view: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.through_a_view = nn.Linear(8, 12), nn.Linear(12, 8), through_a_view

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x)
        hidden.add_(1.0).relu_()
        if self.through_a_view:
            hidden[..., 0].mul_(2.0)
        return self.down(hidden)


@pytest.mark.parametrize("through_a_view", [False, True])
def test_16_in_place_operators_hide_nothing(through_a_view: bool) -> None:
    model = InPlace(through_a_view)
    result = shrink(model, {"up.weight": without(12, 8, gone=[0, 3])}, example(2, 5, 8))
    targets = [n.target for n in result.graph_module.graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
    assert not any(target._schema.is_mutable for target in targets)
    if not through_a_view:  # the constants relu(bias + 1) fold into the next bias
        assert shape(result, "down.weight") == (8, 10)


class Guarded(nn.Module):
    """Accepts at most six positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.positions = nn.Linear(8, 12), nn.Linear(12, 8), nn.Parameter(torch.randn(6, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x + self.positions[: x.shape[1]])))


def test_17_shapes_the_model_does_not_accept_are_skipped_not_wrong() -> None:
    result = passes.shrink(
        passes.trace(Guarded().double(), (example(2, 6, 8),)), {"up.weight": without(12, 8, gone=[0])}
    )
    assert result.report.agreement.shapes[0] == "example"
    assert shape(result, "up.weight") == (11, 8)


def test_18_tied_names_and_the_callers_parameters() -> None:
    model = Shared().double()
    before = {name: p.clone() for name, p in model.named_parameters()}
    graph = passes.trace(model, (ids(),))
    unread = without(C, 12, columns_gone=[5])
    assert shape(passes.shrink(graph, {"down.weight": unread, "twin.weight": unread}), "up.weight") == (11, C)
    for name in ("down.weight", "twin.weight"):
        with pytest.raises(ValueError, match="tied to"):
            passes.shrink(graph, {name: unread})
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_19_the_least_precise_operator_sets_the_tolerance() -> None:
    class HalfHearted(Attention):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            scores = self.q(x) @ self.k(x).transpose(-1, -2)
            return self.o(scores.softmax(-1, dtype=torch.float32).to(x.dtype) @ self.v(x))

    graph = passes.trace(HalfHearted().double(), (example(),))
    assert least_precise(graph) is torch.float32
    difference = passes.shrink(graph, {"v.weight": without(C, gone=range(8))}).report.agreement.max_rel_diff
    assert 1e-10 < difference < 1e-6  # the rows sum to 1 in float32 only
