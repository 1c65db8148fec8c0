"""Masks read off plans: cutting once by them is cutting step by step."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertModel

import passes
from bpc.dense import DenseModel
from bpc.report.kept import kept_masks, lifted
from passes.frontend.trace import trace

LAYER = "encoder.layer.0"


def dims(weight: str, count: int, *gone: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(count, 16, dtype=torch.bool)
    mask[list(gone)] = False
    return {weight: mask, weight.replace("weight", "bias"): mask[:, 0].clone()}


def test_two_cuts_are_one_of_lifted_masks() -> None:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=12)
    model = BertModel(config, add_pooling_layer=False).eval()
    example = {"input_ids": torch.ones(2, 5, dtype=torch.long)}
    graph = trace(model, example)
    up = f"{LAYER}.intermediate.dense.weight"
    query = f"{LAYER}.attention.self.value.weight"
    first = dims(up, 12, 1, 4, 11) | dims(query, 16, *range(4, 8))
    once = DenseModel.from_shrink(passes.shrink(graph, first), passes_masked(model, first))
    second = dims(up, 9, 0, 8) | dims("encoder.layer.1.intermediate.dense.weight", 12, 3)
    twice = passes.shrink(trace(once.module, example), second)

    whole = lifted(kept_masks(twice.plan), once.module_plan)
    gone = kept_masks(once.plan)
    whole = {name: mask & gone.get(name, torch.ones_like(mask)) for name, mask in whole.items()}
    assert whole[up].any(1).nonzero().flatten().tolist() == [2, 3, 5, 6, 7, 8, 9]  # 1, 4, 11, and then 0 and 10
    straight = passes.shrink(graph, whole)
    shapes = [{n: p.shape for n, p in r.graph_module.named_parameters()} for r in (straight, twice)]
    assert shapes[0] == shapes[1]
    assert shapes[0][up] == (7, 16)
    assert lifted({}, once.plan).keys() == gone.keys()


def passes_masked(model: BertModel, masks: dict[str, torch.Tensor]) -> BertModel:
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model
