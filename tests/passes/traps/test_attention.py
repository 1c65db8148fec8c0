"""Traps of attention: empty scores, scales, head dims, grouped queries, rotary pairs, dead and hidden rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import passes
from passes.ir.graph import get_attribute
from tests.passes.traps.small import Attention, C, D, H, calls, dead, example, parameters_left, shape, shrink, without

aten = torch.ops.aten


def product(positions: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    return positions.unsqueeze(1) * rates


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


@pytest.mark.parametrize("names", ["q", "k", "qk"])
@pytest.mark.parametrize("form", ["gqa", "expand", "repeat_interleave"])
def test_5_groups_without_queries_or_keys_still_repeat_them(form: str, names: str) -> None:
    model = Attention(form, kv_heads=2)
    gone = [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    result = shrink(model, {name: torch.zeros_like(model.get_parameter(name), dtype=torch.bool) for name in gone})
    assert shape(result, "v.weight") == (8, C)
    assert shape(result, "k.weight")[0] < 8


def test_5_a_key_head_goes_with_its_whole_group() -> None:
    result = shrink(Attention("gqa", kv_heads=2), {"v.weight": without(8, gone=[*range(4), 7])})
    assert shape(result, "q.weight") == (2 * D, C)
    assert shape(result, "k.weight") == (D, C)
    assert shape(result, "v.weight") == (3, C)
    assert shape(result, "o.weight") == (C, 2 * 3)


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


def test_12_rotary_dims_go_in_pairs_for_all_heads() -> None:
    pair = [d for head in range(H) for d in (head * D, head * D + 2)]  # dims 0 and 2 rotate into each other
    lonely = [head * D + 1 for head in range(H)]
    gone = without(1, C, columns_gone=[*pair, *lonely])[0]
    masks = {"q.weight": gone.unsqueeze(1).expand(C, C).clone(), "q.bias": gone}
    result = shrink(Attention(rotary=product), masks)
    assert shape(result, "q.weight") == shape(result, "k.weight") == (H * 2, C)


def test_12_a_rotary_pair_one_head_needs_stays() -> None:
    gone = without(1, C, columns_gone=[0, 2])[0]
    masks = {"q.weight": gone.unsqueeze(1).expand(C, C).clone(), "q.bias": gone}
    assert shape(shrink(Attention(rotary=product), masks), "q.weight") == (C, C)


class PairedRotary(nn.Module):
    """Neighbours rotate into each other: the dims of a head are viewed as two dims, so heads cannot reorder them."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.q, self.k, self.v, self.o = (nn.Linear(C, C) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, H, D) for f in (self.q, self.k, self.v))
        q, k = self.rotated(q), self.rotated(k)
        mixed = functional.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (q, k, v)))
        return x + self.o(mixed.transpose(1, 2).reshape(b, n, C))

    def rotated(self, y: torch.Tensor) -> torch.Tensor:
        pairs = y.unflatten(-1, (-1, 2))  # (B, N, H, D / 2, 2)
        angle = torch.outer(torch.arange(y.shape[1], dtype=y.dtype), torch.tensor([1.0, 0.1], dtype=y.dtype))
        cos, sin = angle.cos().unsqueeze(1), angle.sin().unsqueeze(1)  # (N, 1, D / 2)
        if self.form == "complex":
            turned = torch.view_as_complex(pairs) * torch.complex(cos, sin)
            return torch.view_as_real(turned).flatten(3)
        one, other = pairs.unbind(-1)
        return torch.stack([one * cos - other * sin, other * cos + one * sin], -1).flatten(3)


@pytest.mark.parametrize("form", ["complex", "real"])
def test_12_heads_do_not_reorder_dims_that_are_viewed_again(form: str) -> None:
    gone = without(1, C, columns_gone=[0, 1, 6, 7, 8, 9, 14, 15])[0]  # every head keeps one pair, not the same
    masks = {"q.weight": gone.unsqueeze(1).expand(C, C).clone(), "q.bias": gone}
    assert shape(shrink(PairedRotary(form), masks), "q.weight") == (C, C)
    everything = shrink(PairedRotary(form), dead("q.weight", "k.weight", "v.weight", "o.weight"))
    assert all(name.startswith("constant") or name == "o.bias" for name in parameters_left(everything))


@pytest.mark.parametrize("angles", [torch.outer, lambda a, b: torch.einsum("i,j->ij", a, b)])
def test_12_rotary_pairs_go_whatever_computes_the_angles(angles: Callable[..., torch.Tensor]) -> None:
    pair = without(1, C, columns_gone=[d for head in range(H) for d in (head * D, head * D + 2)])[0]
    result = shrink(Attention(rotary=angles), {"q.weight": pair.unsqueeze(1).expand(C, C).clone(), "q.bias": pair})
    assert shape(result, "q.weight") == (H * 2, C)


def test_14_dead_attention_disappears() -> None:
    result = shrink(Attention(), dead("o.weight"))
    assert not calls(result, aten.scaled_dot_product_attention.default)
