"""What else one could run instead of a pruned model: dense models of distilled shapes, and Torch-Pruning's result.

Weights are random: speed depends on shapes. Quality is not compared here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
)

import passes
from bpc.bench.published import PublishedModel, bert_base_model, example_inputs, random_dims


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


PEERS: dict[str, Callable[[PublishedModel], fx.GraphModule]] = {
    "distilbert": distilbert,
    "tinybert6": tinybert6,
    "tinybert4": tinybert4,
    "torch-pruning": torch_pruning,
}


def _traced(module: nn.Module) -> fx.GraphModule:
    inputs: dict[str, Any] = example_inputs()
    if isinstance(module, DistilBertForQuestionAnswering):
        del inputs["token_type_ids"]
    with torch.no_grad():
        return passes.trace(module.eval(), inputs)
