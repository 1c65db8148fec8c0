"""Ids in configs, by the names that transformers gives them."""

from __future__ import annotations

from transformers import BertConfig, CLIPConfig, GenerationConfig, XLMConfig

from bpc.vocabulary.ids import configs_of, referred_ids, renumber
from tests.bpc.vocabulary.models_of import bert, clip

NEW = {0: 0, 2: 1, 9: 2, 50: 3}


def test_every_kind_of_id_is_found_and_renumbered() -> None:
    config = GenerationConfig(
        pad_token_id=0,
        eos_token_id=[2, 50],
        suppress_tokens=[9, -1],
        bad_words_ids=[[2, 9], [50]],
        sequence_bias=[[[2, 9], -1.0]],
        num_beams=2,
        max_length=50,
    )
    config.forced_decoder_ids = [[1, 50]]
    config.lang_to_id = {"<|en|>": 9}
    assert referred_ids(config, 60) == {0, 2, 9, 50}
    renumber(config, 60, NEW, 4)
    assert (config.pad_token_id, config.eos_token_id, config.suppress_tokens) == (0, [1, 3], [2, -1])
    assert (config.bad_words_ids, config.sequence_bias) == ([[1, 2], [3]], [[[1, 2], -1.0]])
    assert (config.forced_decoder_ids, config.lang_to_id) == ([[1, 3]], {"<|en|>": 2})
    assert (config.num_beams, config.max_length) == (2, 50)


def test_sizes_of_the_vocabulary_follow_and_no_others() -> None:
    config = BertConfig(vocab_size=60, hidden_size=60, type_vocab_size=2, pad_token_id=50)
    config.task_specific_params = {"summarization": {"eos_token_id": 9, "length": 9}}
    renumber(config, 60, NEW, 4)
    assert (config.vocab_size, config.hidden_size, config.type_vocab_size, config.pad_token_id) == (4, 60, 2, 3)
    assert config.task_specific_params == {"summarization": {"eos_token_id": 2, "length": 9}}
    named_otherwise = XLMConfig(vocab_size=60, pad_index=2)
    renumber(named_otherwise, 60, NEW, 4)
    assert (named_otherwise.vocab_size, named_otherwise.pad_index) == (4, 1)


def test_ids_of_another_vocabulary_stay() -> None:
    config = BertConfig(vocab_size=60, t2u_vocab_size=20, t2u_pad_token_id=2, decoder_vocab_size=60)
    config.decoder_start_token_id = 2
    renumber(config, 60, NEW, 4)
    assert (config.t2u_pad_token_id, config.t2u_vocab_size) == (2, 20)
    assert (config.decoder_start_token_id, config.decoder_vocab_size) == (1, 4)


def test_the_configs_of_all_parts_are_found() -> None:
    model = clip(60)
    found = configs_of(model, 60)
    assert any(config is model.config.text_config for config in found)
    assert isinstance(model.config, CLIPConfig)
    assert configs_of(bert(60), 61) == []
