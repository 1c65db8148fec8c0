"""A transformers tokenizer with another vocabulary, as it is read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bpc.vocabulary.errors import VocabularyError
from bpc.vocabulary.rebuild import backend_json, rebuilt
from bpc.vocabulary.tokenizer_json import TokenizerJson
from tests.bpc.vocabulary.tokenizers_of import tokenizer


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
