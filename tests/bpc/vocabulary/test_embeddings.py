"""What is cut of a model, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from bpc.vocabulary.embeddings import cut_vocabulary, vocabulary_rows
from bpc.vocabulary.errors import VocabularyError
from tests.bpc.vocabulary.models_of import bart, bert, gpt2, llama, roberta

KEPT = (0, 1, 2, 3, 20, 41, 59)


def test_ties_hold_and_sizes_are_told() -> None:
    model = bert(61)
    small, dims = cut_vocabulary(model, KEPT)
    embedding: Any = small.get_input_embeddings()
    decoder: Any = small.get_output_embeddings()
    assert embedding.weight is decoder.weight
    assert decoder.bias is small.cls.predictions.bias
    assert (embedding.num_embeddings, decoder.out_features, small.config.vocab_size) == (7, 7, 7)
    assert torch.equal(embedding.weight, model.get_input_embeddings().weight[list(KEPT)])
    assert torch.equal(decoder.bias, model.get_output_embeddings().bias[list(KEPT)])
    assert dims["cls.predictions.decoder.bias"] == dims["bert.embeddings.word_embeddings.weight"] == 0
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == 61  # the original stays


def test_an_output_embedding_of_its_own_stays_so() -> None:
    small, _ = cut_vocabulary(llama(61), KEPT)
    assert small.lm_head.weight is not small.get_input_embeddings().weight
    assert small.lm_head.weight.shape == (7, 32)


def test_a_bias_that_is_a_buffer_is_cut_along_its_own_dim() -> None:
    model = bart(61)
    small, dims = cut_vocabulary(model, KEPT)
    assert dims["final_logits_bias"] == 1
    assert torch.equal(small.final_logits_bias, model.final_logits_bias[:, list(KEPT)])
    assert "final_logits_bias" in dict(small.named_buffers())


def test_padding_and_configs_follow() -> None:
    model = roberta(61)
    model.config.pad_token_id = 20
    model = type(model)(model.config)
    small, _ = cut_vocabulary(model, KEPT)
    assert (small.config.pad_token_id, small.config.eos_token_id) == (4, 3)
    assert (small.get_input_embeddings().padding_idx, small.roberta.embeddings.padding_idx) == (4, 4)
    generation = gpt2(61)
    generation.generation_config.suppress_tokens = [41]
    small, _ = cut_vocabulary(generation, KEPT)
    assert (small.generation_config.suppress_tokens, small.generation_config.eos_token_id) == ([5], 3)
    assert generation.generation_config.suppress_tokens == [41]


class WithCounts(BertModel):
    """Something as large as the vocabulary, whatever the config says."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.counts = nn.Parameter(torch.ones(61, 3))


class WithPriors(BertModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.priors = nn.Parameter(torch.ones(config.vocab_size, config.vocab_size))


class WithPairs(BertModel):
    """The config sizes it, as something else than a table of tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pairs = nn.Parameter(torch.ones(2 * config.vocab_size))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (WithCounts, r"counts \(61, 3\) is as large as the vocabulary"),
        (WithPriors, r"priors \(61, 61\) depends on the vocabulary in a way that is not understood"),
        (WithPairs, r"pairs \(122,\) depends on the vocabulary in a way that is not understood"),
    ],
)
def test_what_is_as_large_as_the_vocabulary_and_not_understood_is_named(made: Any, message: str) -> None:
    config = BertConfig(vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48)
    with pytest.raises(VocabularyError, match=message):
        cut_vocabulary(made(config), KEPT)


def test_a_size_that_is_the_vocabularys_by_chance_is_no_obstacle() -> None:
    config = BertConfig(vocab_size=48, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48)
    small, dims = cut_vocabulary(BertModel(config), (0, 1, 5))
    assert [*dims] == ["embeddings.word_embeddings.weight"]
    assert small.encoder.layer[0].intermediate.dense.out_features == 48


def test_models_without_a_vocabulary_are_refused() -> None:
    with pytest.raises(VocabularyError, match="Linear has no embedding of tokens"):
        vocabulary_rows(nn.Linear(2, 2))
    model = bert(61)
    model.config.vocab_size = 60
    with pytest.raises(VocabularyError, match="has 61 rows, and the config speaks of 60"):
        vocabulary_rows(model)
