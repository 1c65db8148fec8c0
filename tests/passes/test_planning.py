"""Planning from masks alone: the same plan as shrinking, on the meta device too, reading only what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf
from hypothesis import given
from safetensors.torch import save_file

import passes
from passes.masks import MaskError, TensorFile
from tests.passes.properties.strategies import MaskChoice, mask_choices, shapes
from tests.passes.properties.tiny import Shape, build, inputs


def by_parameter(plan: passes.Plan) -> tuple[object, ...]:
    return {c.parameter: c for c in plan.cuts}, {f.weight: f for f in plan.folds}, set(plan.heads)


@given(shapes(), mask_choices())
def test_plans_are_those_of_shrink(shape: Shape, choice: MaskChoice) -> None:
    model = build(shape)
    graph, masks = passes.trace(model, inputs()), choice.of(model)
    expected = passes.shrink(graph, masks, verify=False).plan
    assert by_parameter(passes.plan_shrink(graph, masks)) == by_parameter(expected)


@pytest.fixture
def small(tmp_path: Path) -> tuple[hf.LlamaConfig, Path, dict[str, torch.Tensor]]:
    """A Llama configuration, its weights on disk, and masks of FFN rows, whole kv groups and the output's blocks."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    model = hf.LlamaModel(config)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    masks = {}
    for name, parameter in model.named_parameters():
        rows = torch.rand(parameter.shape[0], 1) > 0.4
        if "mlp" in name and "down" not in name:
            masks[name] = rows.expand(parameter.shape)
        elif "v_proj" in name:
            masks[name] = (torch.arange(parameter.shape[0]) >= 8)[:, None].expand(parameter.shape)
    return config, tmp_path, masks


def test_a_model_on_the_meta_device_is_planned_from_its_masks(
    small: tuple[hf.LlamaConfig, Path, dict[str, torch.Tensor]],
) -> None:
    config, folder, masks = small
    ids = torch.randint(0, 50, (2, 6))
    model = hf.LlamaModel.from_pretrained(folder, config=config)
    expected = passes.shrink(passes.trace(model, {"input_ids": ids}), masks).plan
    with torch.device("meta"):
        shell = hf.LlamaModel(config)
    graph = passes.trace(shell, {"input_ids": ids.to("meta")})
    tensors, asked = TensorFile(folder), set()

    def read(name: str) -> torch.Tensor | None:
        asked.add(name)
        return tensors.get(name)

    plan = passes.plan_shrink(graph, masks, read=read)
    assert by_parameter(plan) == by_parameter(expected)
    assert plan.small_shape("layers.0.self_attn.q_proj.weight", (32, 32)) == (16, 32)
    assert asked <= set(masks) | {n for n, p in shell.named_parameters() if p.dim() == 1} | set(
        dict(shell.named_buffers())
    )
    assert by_parameter(passes.plan_shrink(graph, masks)) == by_parameter(expected)  # zeros need no numbers


def test_unread_numbers_are_never_guessed() -> None:
    """A dead FFN row with a bias of unknown value is constant, but cannot be folded; biases are enough to fold it."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU(), torch.nn.Linear(6, 3))
    masks = {"0.weight": (torch.arange(6) > 1)[:, None].expand(6, 4)}
    graph = passes.trace(model.to("meta"), torch.randn(2, 4, device="meta"))
    blind = passes.plan_shrink(graph, masks)
    assert (blind.folds, blind.cuts) == ((), ())
    plan = passes.plan_shrink(graph, masks, read={"0.bias": torch.arange(6.0)}.get)
    assert (plan.folds[0].weight, plan.folds[0].bias, plan.folds[0].columns) == ("2.weight", "2.bias", (0, 1))
    assert plan.folds[0].constants == pytest.approx(torch.nn.functional.gelu(torch.arange(2.0)).tolist())
    assert plan.small_shape("2.weight", (3, 6)) == (3, 4)


def test_numbers_of_another_shape_are_refused() -> None:
    graph = passes.trace(torch.nn.Linear(4, 6), torch.randn(2, 4))
    masks = {"weight": torch.zeros(6, 4, dtype=torch.bool)}
    with pytest.raises(MaskError, match=r"'bias' was read with shape \(7,\); the traced model has \(6,\)"):
        passes.plan_shrink(graph, masks, read={"bias": torch.ones(7)}.get)
