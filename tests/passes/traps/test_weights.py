"""Traps of weights with several meanings: shared tables, fused projections, transposed storage, tied parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

import passes
from passes.ir.graph import get_attribute
from tests.passes.families import FAMILIES, make
from tests.passes.traps.small import C, D, H, parameters_left, shape, shrink, without

aten = torch.ops.aten


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


class PackedBias(nn.Module):
    """nn.MultiheadAttention with keys of another width splits its packed bias, not its weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(C, H, kdim=C, vdim=6, batch_first=True)
        nn.init.normal_(self.attention.in_proj_bias)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, y, need_weights=False)[0]


class AddedBias(nn.Module):
    """x @ W + b with parameters of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Parameter(torch.randn(C, C)) for _ in range(3))
        self.bq, self.bk, self.bv = (nn.Parameter(torch.randn(C)) for _ in range(3))
        self.o = nn.Linear(C, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        products = (x @ self.q + self.bq, x @ self.k + self.bk, x @ self.v + self.bv)
        q, k, v = (y.unflatten(-1, (H, D)).transpose(1, 2) for y in products)
        return self.o(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_6_a_packed_bias_shrinks_with_separate_weights() -> None:
    x, y = torch.randn(2, 5, C).double(), torch.randn(2, 5, 6).double()
    masks = {
        "attention.k_proj_weight": without(C, gone=[0, 1, 6, 7, 9, 10, 12, 15]),  # every head keeps two dims
        "attention.v_proj_weight": without(C, 6, gone=[*range(4), 5, 8, 14]),  # head 0 dies, the others keep three
    }
    result = shrink(PackedBias(), masks, x, y)
    assert not result.report.unknown_operators
    assert shape(result, "attention.q_proj_weight") == shape(result, "attention.k_proj_weight") == (3 * 2, C)
    assert shape(result, "attention.v_proj_weight") == (3 * 3, 6)
    assert shape(result, "attention.in_proj_bias") == (3 * 2 + 3 * 2 + 3 * 3,)


def test_6_a_bias_added_by_hand_shrinks_with_its_product() -> None:
    masks = {
        "k": without(C, columns_gone=[0, 1, 6, 7, 9, 10, 12, 15]),  # every head keeps two dims
        "v": without(C, columns_gone=[*range(4), 5, 8, 14]),  # head 0 dies, the others keep three
    }
    result = shrink(AddedBias(), masks)
    assert shape(result, "q") == shape(result, "k") == (C, 3 * 2)
    assert shape(result, "v") == (C, 3 * 3)
    assert (shape(result, "bq"), shape(result, "bv")) == ((3 * 2,), (3 * 3,))


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
