"""Fresh inputs are like the example, of other sizes, and such as the model takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from passes.driver import shrink
from passes.frontend.trace import trace
from passes.verify.inputs import fresh_inputs
from passes.verify.record import record_reference
from tests.passes.verify.models import Net, net_inputs


def test_fresh_inputs_have_other_shapes_the_same_ranges_and_no_empty_rows() -> None:
    seen = set()
    for _, _, kwargs in fresh_inputs(trace(Net(), net_inputs())):
        ids, mask = kwargs["ids"], kwargs["mask"]
        seen.add(tuple(ids.shape))
        assert ids.shape == mask.shape
        assert 2 <= int(ids.min()) <= int(ids.max()) <= 8
        assert set(mask.unique().tolist()) <= {0, 1}
        assert bool(mask.any(1).all())
    assert len(seen) == 3
    assert any(batch == 1 and length > 5 for batch, length in seen)
    assert any(batch > 2 and length < 5 for batch, length in seen)


def test_fresh_inputs_are_the_same_for_the_same_seed() -> None:
    graph = trace(Net(), net_inputs())
    one, two = ([k["ids"] for _, _, k in fresh_inputs(graph, seed=3)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_fresh_floats_have_the_dtype_asked_for() -> None:
    graph = trace(nn.Linear(4, 4), torch.randn(2, 3, 4))
    assert all(args[0].dtype is torch.float64 for _, args, _ in fresh_inputs(graph, dtype=torch.float64))


class Segments(nn.Module):
    """Ids, segment ids of one segment only, and positions counted from the ids: what RoBERTa takes."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.segments, self.places = nn.Embedding(50, 8), nn.Embedding(1, 8), nn.Embedding(40, 8)

    def forward(self, ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        places = ids.ne(1).int().cumsum(1) * ids.ne(1).int()
        return self.words(ids) + self.segments(segments) + self.places(places)


@pytest.mark.parametrize("fill", [0, 1])
def test_ids_of_one_value_are_indices_not_masks(fill: int) -> None:
    ids = torch.full((2, 7), fill)
    graph = trace(Segments(), {"ids": ids, "segments": torch.zeros_like(ids)})
    fresh = [kwargs for _, _, kwargs in fresh_inputs(graph)][1:]
    assert all(len(kwargs["ids"].unique()) > 5 for kwargs in fresh)
    assert all(not bool(kwargs["segments"].any()) for kwargs in fresh)  # its table has one row
    assert record_reference(graph).skipped == ()


def test_inputs_that_must_fit_each_other_are_tried_as_the_example_has_them() -> None:
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = nn.Embedding(30, 4)

        def forward(self, box: torch.Tensor) -> torch.Tensor:
            return self.width(box[..., 1] - box[..., 0])

    left = torch.randint(0, 15, (2, 5, 1))
    graph = trace(Boxes(), torch.cat([left, left + torch.randint(1, 15, (2, 5, 1))], -1))
    reference = record_reference(graph)
    assert sum(trial.draw.fresh for trial in reference.trials) == 2  # random ones have widths below zero


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.o = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        q = self.q(x).view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)
        return self.o(functional.scaled_dot_product_attention(q, q, q, bias).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("causal", [False, True])
def test_additive_masks_of_rank_four_stay_masks(causal: bool) -> None:
    hidden = torch.finfo(torch.float32).min
    example = torch.full((7, 7), hidden).triu(1) if causal else torch.zeros(7, 7)
    graph = trace(Masked(), (torch.randn(2, 7, 8), example.expand(2, 1, 7, 7).clone()))
    for _, (x, mask), _ in list(fresh_inputs(graph))[1:]:
        assert mask.shape == (x.shape[0], 1, x.shape[1], x.shape[1])
        assert set(mask.unique().tolist()) == {hidden, 0.0}
        assert not causal or not bool((mask == 0).triu(1).any())
    agreement = shrink(graph).report.agreement
    assert agreement is not None
    assert agreement.skipped == ()


def test_padding_masks_where_true_hides_verify() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True).double()
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    nn.init.normal_(encoder.layers[0].self_attn.in_proj_bias)
    padding = torch.tensor([[False, False], [False, True]])  # few keys: a random tail is often the whole row
    inputs = {"src": torch.randn(2, 2, 8).double(), "src_key_padding_mask": padding}
    dead = torch.arange(24).lt(16).unsqueeze(1).expand(24, 8).clone()  # the values are their biases
    shrink(trace(encoder, inputs), {"layers.0.self_attn.in_proj_weight": dead})
