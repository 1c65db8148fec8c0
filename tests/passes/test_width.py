"""Width masks from outside: the small model is the one whose norms run over the kept channels, and refusals say why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import passes
from passes.masks import MaskError
from passes.width import residual_streams
from tests.passes.families import FAMILIES, make
from tests.passes.masked_norms import masked_norms
from tests.passes.properties.strategies import MaskChoice, mask_choices, shapes
from tests.passes.properties.tiny import Shape, build, inputs
from tests.passes.test_architectures import distance, tensors
from tests.passes.test_planning import by_parameter


def drawn(size: int, seed: int = 3) -> torch.Tensor:
    kept = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.7
    kept[0] = True
    return kept


def narrow(outputs: list[torch.Tensor], kept: torch.Tensor) -> list[torch.Tensor]:
    """Outputs along the stream hold the kept channels alone."""
    return [t[..., kept] if t.shape[-1] == len(kept) else t for t in outputs]


@settings(max_examples=6)
@given(shapes(), mask_choices(), st.integers(0, 1000))
def test_small_is_the_model_whose_norms_run_over_what_is_kept(shape: Shape, choice: MaskChoice, seed: int) -> None:
    model = build(shape)
    graph = passes.trace(model, inputs())
    (stream,) = residual_streams(graph)
    assert (stream.size, stream.refusal) == (shape.width, None)
    kept, masks = drawn(shape.width, seed), choice.of(model)
    result = passes.shrink(graph, masks, width=kept)
    masked = build(shape)
    masked.load_state_dict({name: value * masks.get(name, 1) for name, value in model.state_dict().items()})
    reference = masked_norms(masked, stream.parameters, kept)
    for batch, length in ((1, 4), (4, 7)):
        fresh = inputs(seed, batch, length)
        with torch.no_grad():
            assert distance([reference(**fresh)], [result.graph_module(**fresh)]) <= 1e-10
    embedding = dict(result.graph_module.named_parameters())["embedding.weight"]
    assert embedding.shape == (11, int(kept.sum()))
    planned = passes.plan_shrink(graph, masks, width=kept)
    assert by_parameter(planned) == by_parameter(result.plan)


FORMS = {"bert": 1e-12, "t5": 1e-5, "vit": 1e-12}


@pytest.mark.parametrize("name", FORMS)
def test_families_and_their_modules(name: str) -> None:
    """Norms, embeddings, tied heads, convolutions, position tables; norms that compute in float32 are what they are."""
    model, example = make(FAMILIES[name], FAMILIES[name].forms[0])
    graph = passes.trace(model, example)
    (stream,) = residual_streams(graph)
    kept = drawn(stream.size)
    result = passes.shrink(graph, width=kept)
    with torch.no_grad():
        expected = narrow(tensors(masked_norms(model, stream.parameters, kept)(**example)), kept)
        assert distance(expected, tensors(result.graph_module(**example))) <= FORMS[name]
        module = result.plan.apply_to(model)
        assert distance(expected, tensors(module(**example))) <= FORMS[name]
    small = dict(module.named_parameters())
    for parameter, dims in stream.parameters.items():
        assert all(small[parameter].shape[dim] == int(kept.sum()) for dim in dims if parameter in small)


def test_a_bias_that_folding_adds_is_as_narrow_as_the_stream() -> None:
    """sigmoid(0) of a dead FFN dim goes into a bias that the linear lacks, which writes to the stream."""
    model = build(Shape(layers=1, heads=1, kv_heads=1, bias=False, activation="sigmoid", pre_norm=True))
    graph, kept = passes.trace(model, inputs()), drawn(8)
    up = torch.ones(12, 8, dtype=torch.bool)
    up[::2] = False
    masks = {"layers.0.ffn.up.weight": up}
    result = passes.shrink(graph, masks, width=kept)
    assert any(fold.new_bias for fold in result.plan.folds)
    module = result.plan.apply_to(model)
    assert dict(module.named_parameters())["layers.0.ffn.down.bias"].shape == (int(kept.sum()),)
    with torch.no_grad():
        assert distance([result.graph_module(**inputs())], [module(**inputs())]) <= 1e-12
    assert by_parameter(passes.plan_shrink(graph, masks, width=kept)) == by_parameter(result.plan)


def test_zeros_alone_do_not_narrow_a_stream() -> None:
    """The same zeros without a width mask are another model: its norms run over all channels."""
    model = build(Shape())
    graph = passes.trace(model, inputs())
    (stream,) = residual_streams(graph)
    kept = drawn(stream.size)
    masks = {
        name: kept.view([-1 if d == dims[0] else 1 for d in range(p.dim())]).expand(p.shape)
        for name, p in model.named_parameters()
        if (dims := stream.parameters.get(name)) is not None
    }
    with torch.no_grad():
        plain = passes.shrink(graph, masks).graph_module(**inputs())
        assert distance([plain], [passes.shrink(graph, width=kept).graph_module(**inputs())]) > 1e-2


def test_a_mask_of_everything_changes_nothing() -> None:
    graph = passes.trace(build(Shape()), inputs())
    result = passes.shrink(graph, width=torch.ones(8, dtype=torch.bool))
    assert not result.plan.cuts
    assert "width" not in result.certificate.options


def test_the_certificate_says_what_was_kept() -> None:
    kept = torch.tensor([1, 0, 1, 1, 0, 1, 1, 1]).bool()
    certificate = passes.shrink(passes.trace(build(Shape()), inputs()), width=kept).certificate
    (said,) = certificate.options["width"]
    assert (said["size"], said["kept"]) == (8, [0, 2, 3, 5, 6, 7])
    assert any(step["name"] == "narrow-width" and step["modified"] for step in certificate.passes)


class TwoStreams(nn.Module):
    """Streams of 4 and 6 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(7, n) for n in (4, 6))
        self.ups = nn.ModuleList(nn.Linear(n, 5) for n in (4, 6))
        self.downs = nn.ModuleList(nn.Linear(5, n) for n in (4, 6))
        self.heads = nn.ModuleList(nn.Linear(n, 2) for n in (4, 6))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        for table, up, down, head in zip(self.tables, self.ups, self.downs, self.heads, strict=True):
            x = table(ids)
            x = x + down(torch.relu(up(x)))
            total = total + head(nn.functional.layer_norm(x, (x.shape[-1],)))
        return total


IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def test_streams_are_named_by_a_parameter_along_them() -> None:
    graph = passes.trace(TwoStreams().double(), (IDS,))
    assert [stream.size for stream in residual_streams(graph)] == [4, 6]
    small = passes.shrink(graph, width={"downs.1.bias": torch.tensor([1, 1, 1, 0, 1, 0]).bool()}).graph_module
    shapes = {name: tuple(p.shape) for name, p in small.named_parameters()}
    assert (shapes["tables.0.weight"], shapes["tables.1.weight"]) == ((7, 4), (7, 4))


YES = torch.ones(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (YES, "2 residual streams"),
        ([True], "width is list"),
        ({"downs.0.bias": YES.float()}, "pass a bool tensor"),
        ({"downs.0.bias": YES[:3]}, r"has shape \(3,\); the stream has 4 channels"),
        ({"downs.0.bias": ~YES}, "keeps no channel"),
        ({"ups.0.bias": YES}, "is no parameter along a residual stream; did you mean"),
        ({"downs.0.bias": YES, "tables.0.weight": torch.tensor([1, 1, 1, 0]).bool()}, "given different masks"),
    ],
)
def test_masks_that_do_not_fit_are_refused(width: Any, message: str) -> None:
    graph = passes.trace(TwoStreams(), (IDS,))
    with pytest.raises(MaskError, match=message):
        passes.shrink(graph, width=width)


def test_a_stream_that_cannot_go_says_why() -> None:
    model, example = make(FAMILIES["nn-encoder"], FAMILIES["nn-encoder"].forms[0])
    graph = passes.trace(model, example)
    (stream,) = residual_streams(graph)
    assert stream.refusal == "src[2]: an input of the model"
    with pytest.raises(MaskError, match=r"cannot be narrowed: src\[2\]: an input of the model"):
        passes.shrink(graph, width=drawn(stream.size))


def test_a_model_without_a_stream_is_refused() -> None:
    graph = passes.trace(nn.Linear(3, 2), (torch.ones(2, 3),))
    with pytest.raises(MaskError, match="no attention or FFN"):
        passes.shrink(graph, width=YES)
