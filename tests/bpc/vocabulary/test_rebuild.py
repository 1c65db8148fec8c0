"""A transformers tokenizer with another vocabulary, as it is read from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    CLIPTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

from bpc.vocabulary.corpus import Limits, choose, compare, count_tokens
from bpc.vocabulary.errors import VocabularyError
from bpc.vocabulary.rebuild import backend_json, bare, rebuilt
from bpc.vocabulary.tokenizer_json import TokenizerJson
from tests.bpc.vocabulary.tokenizers_of import corpus, tokenizer


def test_everything_but_the_vocabulary_stays(tmp_path: Path) -> None:
    full = tokenizer("wordpiece")
    full.model_max_length, full.chat_template, full.name_or_path = 77, "{{ messages }}", "owner/name"
    content = TokenizerJson(backend_json(full))
    new = content.new_ids(content.required())
    names = {index: token for token, index in content.ids.items()}
    made = rebuilt(full, content.with_ids(new), {names[old]: i for old, i in new.items()})
    assert (made.model_max_length, made.chat_template, made.name_or_path) == (77, "{{ messages }}", "owner/name")
    assert (made.pad_token, made.eos_token, len(made)) == ("<pad>", "</s>", len(new))
    made.save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(new)


def _model(kind: str) -> Any:
    return json.loads(backend_json(tokenizer(kind)))["model"]


def _unigram(*special: str) -> list[tuple[str, float]]:
    pieces = [(piece, score) for piece, score in _model("unigram")["vocab"] if not piece.startswith("<")]
    return [*((token, 0.0) for token in special), *pieces]


def _bpe(kind: str, *special: str) -> dict[str, Any]:
    model = _model(kind)
    more = {token: len(model["vocab"]) + i for i, token in enumerate(special)}
    return {"vocab": model["vocab"] | more, "merges": [tuple(pair) for pair in model["merges"]]}


@pytest.mark.parametrize(
    "made",
    [
        lambda: BertTokenizer(vocab=_model("wordpiece")["vocab"] | {"[UNK]": 203, "[CLS]": 204, "[SEP]": 205}),
        lambda: T5Tokenizer(vocab=_unigram("<pad>", "</s>", "<unk>"), extra_ids=3),
        lambda: XLMRobertaTokenizer(vocab=_unigram("<s>", "<pad>", "</s>", "<unk>")),
        lambda: GPT2Tokenizer(**_bpe("bytes", "<|endoftext|>")),
        lambda: LlamaTokenizer(**_bpe("fallback")),
        lambda: CLIPTokenizer(**_bpe("suffix", "<|startoftext|>", "<|endoftext|>")),
    ],
    ids=["bert", "t5", "xlm-roberta", "gpt2", "llama", "clip"],
)
def test_classes_that_build_their_pipeline_themselves_read_the_smaller_file(made: Any) -> None:
    full = made()
    content, backend = TokenizerJson(backend_json(full)), bare(backend_json(full))
    counts = count_tokens(backend, corpus(1, 20))
    names = {index: token for token, index in content.ids.items()}
    kept = choose(counts, content.required(""), lambda index: content.needed(names[index]), Limits())
    new = content.new_ids(kept)
    small = rebuilt(full, content.with_ids(new), {names[old]: i for old, i in new.items()})
    assert type(small) is type(full)
    assert len(small) < len(full)
    covered = compare(backend, bare(backend_json(small)), new, corpus(1, 20), content.unknown)
    assert covered.texts_whole == 20
    for text in corpus(1, 20):
        assert small(text)["input_ids"] == [new[index] for index in full(text)["input_ids"]]


def test_a_class_that_does_not_keep_to_its_file_is_refused() -> None:
    class Adding(PreTrainedTokenizerFast):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_tokens(["<more>"])

    made = tokenizer("wordpiece")
    adding = Adding(tokenizer_object=made.backend_tokenizer)
    with pytest.raises(VocabularyError, match=r"does not keep to its tokenizer.json: '<more>'"):
        rebuilt(adding, backend_json(made), made.get_vocab())


def test_a_tokenizer_without_a_tokenizer_json_is_refused() -> None:
    with pytest.raises(VocabularyError, match=r"str has no tokenizer.json"):
        backend_json("no tokenizer")
