"""What else one could run instead of bpc's result: dense models of distilled shapes, and what other tools leave.

Weights are random: speed depends on shapes. Quality is not compared here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
)

import passes
from bpc.bench.published import PublishedModel, bert_base_model, example_inputs, random_dims, structure_masks
from passes.structure.roles import find_roles

_ALL = slice(None)


def distilbert(model: PublishedModel) -> fx.GraphModule:
    """Six layers of BERT-base's width, no token types."""
    return _traced(DistilBertForQuestionAnswering(DistilBertConfig()))


def tinybert6(model: PublishedModel) -> fx.GraphModule:
    """Six layers of BERT-base's width: the TinyBERT of the paper's tables."""
    return _traced(BertForQuestionAnswering(BertConfig(num_hidden_layers=6)))


def tinybert4(model: PublishedModel) -> fx.GraphModule:
    """Four layers of width 312, FFN 1200."""
    return _traced(BertForQuestionAnswering(BertConfig(num_hidden_layers=4, hidden_size=312, intermediate_size=1200)))


def torch_pruning(model: PublishedModel) -> fx.GraphModule:
    """BERT-base with the heads and FFN dims of ``model`` removed by Torch-Pruning's dependency graph.

    Needs the extra ``peers``; raises ModuleNotFoundError with what to install. Heads are given row by row: it has no
    notion of them.
    """
    try:
        import torch_pruning as tp
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--peer torch-pruning needs pip install 'block-pruning-compiler[peers]'") from error
    module: Any = bert_base_model()
    graph = tp.DependencyGraph().build_dependency(module, example_inputs=example_inputs())
    live = random_dims([3072] * 12, model.ffn_dims)
    for layer, gone, kept in zip(module.bert.encoder.layer, model.pruned_heads, live, strict=True):
        rows = [64 * head + dim for head in gone for dim in range(64)]
        if rows:
            group = graph.get_pruning_group(layer.attention.self.query, tp.prune_linear_out_channels, idxs=rows)
            group.prune()  # k, v and the output projection follow
        dims = (~kept).nonzero().flatten().tolist()
        graph.get_pruning_group(layer.intermediate.dense, tp.prune_linear_out_channels, idxs=dims).prune()
    return _traced(module)


def reference(model: PublishedModel) -> fx.GraphModule:
    """What the optimize step of the paper's own implementation leaves of the masked BERT-base, by its description.

    A head goes where any of its Q, K and V is all zeros, an FFN unit where its row of the first layer is. Biases are
    not looked at, so what a dropped part still adds to the output is lost with it.
    """
    module: Any = bert_base_model()
    masks = structure_masks(find_roles(_traced(module)), model.pruned_heads, model.ffn_dims)
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name).mul_(mask)
    for layer in module.bert.encoder.layer:
        attention, size = layer.attention.self, layer.attention.self.attention_head_size
        projections = (attention.query, attention.key, attention.value)
        heads = torch.stack([p.weight.view(-1, size, p.in_features).any(2).any(1) for p in projections]).all(0)
        rows = heads.repeat_interleave(size)
        attention.query, attention.key, attention.value = (_cut(p, rows=rows) for p in projections)
        layer.attention.output.dense = _cut(layer.attention.output.dense, columns=rows)
        units = layer.intermediate.dense.weight.any(1)
        layer.intermediate.dense = _cut(layer.intermediate.dense, rows=units)
        layer.output.dense = _cut(layer.output.dense, columns=units)
    return _traced(module)


def _cut(linear: nn.Linear, rows: Tensor | slice = _ALL, columns: Tensor | slice = _ALL) -> nn.Linear:
    """A copy of ``linear`` with some of its output rows and input columns."""
    weight, bias = linear.weight.detach()[rows][:, columns], linear.bias.detach()[rows]
    small = nn.Linear(weight.shape[1], weight.shape[0])
    small.load_state_dict({"weight": weight, "bias": bias})
    return small


PEERS: dict[str, Callable[[PublishedModel], fx.GraphModule]] = {
    "distilbert": distilbert,
    "tinybert6": tinybert6,
    "tinybert4": tinybert4,
    "torch-pruning": torch_pruning,
    "reference": reference,
}


def _traced(module: nn.Module) -> fx.GraphModule:
    inputs: dict[str, Any] = example_inputs()
    if isinstance(module, DistilBertForQuestionAnswering):
        del inputs["token_type_ids"]
    with torch.no_grad():
        return passes.trace(module.eval(), inputs)
