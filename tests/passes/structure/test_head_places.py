"""Where the heads of an attention lie in its weights, by layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from passes.frontend.trace import trace
from passes.structure.head_places import HeadPlaces, head_places
from passes.structure.role import Part
from passes.structure.roles import find_roles

HEADS, DIMS = 2, 4


class Attention(nn.Module):
    """Projections of two heads of four dims around what ``mix`` makes of them."""

    def __init__(self, mix: Callable[[Attention, Tensor], Tensor], rows: tuple[int, ...]) -> None:
        super().__init__()
        self.mix = mix
        self.linears = nn.ModuleList(nn.Linear(8, n) for n in rows)
        self.out = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(DIMS)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.mix(self, x))


def _split(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, DIMS)).transpose(1, 2)  # (B, H, L, D)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def fused(model: Attention, x: Tensor) -> Tensor:
    q, k, v = model.linears[0](x).chunk(3, dim=-1)
    return _merge(scaled_dot_product_attention(_split(q), _split(k), _split(v)))


def head_by_head(model: Attention, x: Tensor) -> Tensor:
    q, k, v = model.linears[0](x).unflatten(-1, (HEADS, 3, DIMS)).permute(3, 0, 2, 1, 4)
    return _merge(scaled_dot_product_attention(q, k, v))


def dims_first(model: Attention, x: Tensor) -> Tensor:
    """Head h has the rows h, h + 2, …, written out with einsum."""
    q, k, v = (linear(x).unflatten(-1, (DIMS, HEADS)) for linear in model.linears)
    probs = torch.einsum("bidh,bjdh->bhij", q, k).softmax(-1)
    return torch.einsum("bhij,bjdh->bidh", probs, v).flatten(2)


def shared(model: Attention, x: Tensor) -> Tensor:
    q, k, v = (_split(linear(x)) for linear in model.linears)
    k, v = (t.expand(-1, HEADS, -1, -1) for t in (k, v))
    return _merge(torch.softmax(q @ k.transpose(2, 3) / 2, -1) @ v)


def rotated(model: Attention, x: Tensor) -> Tensor:
    q, k, v = (_split(linear(x)) for linear in model.linears)
    angles = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.1]).repeat(2)
    q, k = (t * angles.cos() + torch.cat([-t[..., 2:], t[..., :2]], -1) * angles.sin() for t in (q, k))
    return _merge(scaled_dot_product_attention(q, k, v))


def normalised(model: Attention, x: Tensor) -> Tensor:
    q, k, v = (_split(linear(x)) for linear in model.linears)
    return _merge(scaled_dot_product_attention(model.norm(q), k, v))


def merged_with_the_batch(model: Attention, x: Tensor) -> Tensor:
    q, k, v = (_split(linear(x)).flatten(0, 1) for linear in model.linears)
    mixed = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
    return _merge(mixed.view(x.shape[0], HEADS, -1, DIMS))


def places(mix: Callable[[Attention, Tensor], Tensor], *rows: int) -> dict[Part, HeadPlaces]:
    graph = trace(Attention(mix, rows), (torch.randn(2, 3, 8),))
    return {p.part: p for p in head_places(find_roles(graph)).get("attention.0", ())}


IN_ORDER = [[[0, 1, 2, 3], [4, 5, 6, 7]]]


def test_operands_side_by_side_and_head_by_head() -> None:
    rows = torch.tensor(IN_ORDER)
    found = places(fused, 24)
    for number, part in enumerate((Part.QUERY, Part.KEY, Part.VALUE)):
        assert torch.equal(found[part].index, rows + 8 * number)
    assert torch.equal(found[Part.OUTPUT].index, rows)
    found = places(head_by_head, 24)
    assert found[Part.KEY].index.tolist() == [[[4, 5, 6, 7], [16, 17, 18, 19]]]
    assert torch.equal(found[Part.OUTPUT].index, rows)


def test_heads_need_not_be_stretches_of_rows() -> None:
    found = places(dims_first, 8, 8, 8)
    assert {tuple(p.index.flatten().tolist()) for p in found.values()} == {(0, 2, 4, 6, 1, 3, 5, 7)}
    assert set(found) == {Part.QUERY, Part.KEY, Part.VALUE, Part.OUTPUT}


def test_heads_that_share_keys_and_values_name_the_same_rows() -> None:
    found = places(shared, 8, 4, 4)
    assert found[Part.QUERY].index.tolist() == IN_ORDER
    assert found[Part.KEY].index.tolist() == found[Part.VALUE].index.tolist() == [[[0, 1, 2, 3]] * 2]


def test_rotated_dims_have_two_sources() -> None:
    found = places(rotated, 8, 8, 8)
    assert found[Part.QUERY].index.shape == (2, HEADS, DIMS)
    sources = found[Part.KEY].index.sort(0).values
    assert sources[:, 1].T.tolist() == [[4, 6], [5, 7], [4, 6], [5, 7]]
    assert found[Part.VALUE].index.tolist() == IN_ORDER


def test_a_norm_mixes_dims() -> None:
    found = places(normalised, 8, 8, 8)
    assert {part: p.mixed for part, p in found.items()} == {
        Part.QUERY: True,
        Part.KEY: False,
        Part.VALUE: False,
        Part.OUTPUT: False,
    }


@pytest.mark.parametrize("mix", [merged_with_the_batch])
def test_what_the_graph_does_not_say_is_left_out(mix: Callable[[Attention, Tensor], Tensor]) -> None:
    assert places(mix, 8, 8, 8) == {}
