"""Texts of kept tokens are tokenised as before, whatever is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from tokenizers.processors import BertProcessing, ByteLevel, Sequence

from bpc.vocabulary.errors import VocabularyError
from bpc.vocabulary.tokenizer_json import TokenizerJson
from tests.bpc.vocabulary.tokenizers_of import KINDS, corpus, tokenizer

BACKENDS = {kind: tokenizer(kind).backend_tokenizer for kind in KINDS}
LETTERS = "balomitrenksvérduxop ▁日😀"


def reduced(full: Tokenizer, content: TokenizerJson, used: set[int]) -> tuple[Tokenizer, dict[int, int]]:
    names = {index: token for token, index in content.ids.items()}
    kept = content.required(characters="") | used
    new = content.new_ids(set().union(*(content.needed(names[index]) for index in kept)))
    return Tokenizer.from_str(content.with_ids(new)), new


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_texts_of_kept_tokens_tokenise_to_the_same_strings(kind: str, data: st.DataObject) -> None:
    """One text says what is kept; of it and of all others, those wholly kept come out the same."""
    full = BACKENDS[kind]
    anything = st.text(LETTERS, min_size=1, max_size=20)
    text = data.draw(st.sampled_from(corpus()) | anything)
    small, new = reduced(full, TokenizerJson(full.to_str()), set(full.encode(text).ids))
    others = [*corpus(), *data.draw(st.lists(anything, max_size=20))]
    whole = [other for other in others if {*full.encode(other).ids} <= new.keys()]
    for one in (text, *whole):
        before, after = full.encode(one), small.encode(one)
        assert before.tokens == after.tokens
        assert [new[index] for index in before.ids] == after.ids
        assert small.decode(after.ids) == full.decode(before.ids)
    assert small.get_vocab_size() == len(new)


@pytest.mark.parametrize("kind", KINDS)
def test_something_is_dropped_and_what_always_stays_is_there(kind: str) -> None:
    full = BACKENDS[kind]
    content = TokenizerJson(full.to_str())
    small, _ = reduced(full, content, content.required() | set(full.encode(corpus()[0]).ids))
    assert small.get_vocab_size() < full.get_vocab_size()
    vocabulary = small.get_vocab()
    assert {"<pad>", "<unk>", "<s>", "</s>"} <= vocabulary.keys()
    if kind == "bytes":
        assert small.decode(small.encode("日本 😀\n").ids, skip_special_tokens=True) == "日本 😀\n"
    if kind == "fallback":
        assert {f"<0x{byte:02X}>" for byte in range(256)} <= vocabulary.keys()
    if kind == "wordpiece":
        assert {"b", "##b", "é", "##é"} <= vocabulary.keys()
    if kind == "suffix":
        assert {"b", "é", "é</w>"} <= vocabulary.keys()
    if kind == "unigram":
        pieces = dict(json.loads(full.to_str())["model"]["vocab"])
        assert min(pieces, key=lambda piece: pieces[piece]) in vocabulary  # sets what unknown characters cost
        assert json.loads(small.to_str())["model"]["unk_id"] == vocabulary["<unk>"]


def test_characters_that_are_not_asked_for_go_but_never_bytes() -> None:
    for kind, goes in (("wordpiece", True), ("bytes", False)):
        content = TokenizerJson(BACKENDS[kind].to_str())
        assert (content.ids["x"] not in content.required(characters="ba")) == goes
        assert content.ids["b"] in content.required(characters="ba")


def test_ids_are_renumbered_wherever_they_stand() -> None:
    full = Tokenizer.from_str(BACKENDS["wordpiece"].to_str())
    full.add_special_tokens(["<late>"])
    full.enable_padding(pad_id=full.token_to_id("<late>"), pad_token="<late>")
    last = full.get_vocab_size() - 1
    full.post_processor = Sequence([ByteLevel(), BertProcessing(("<late>", last), ("<s>", 2))])
    small, new = reduced(full, TokenizerJson(full.to_str()), set())
    assert new[last] == small.get_vocab_size() - 1 == small.token_to_id("<late>") < last
    assert small.padding["pad_id"] == small.encode("").ids[-1] == new[last]


def _json(kind: Any, **more: Any) -> str:
    data = json.loads(Tokenizer(kind).to_str())
    return json.dumps({**data, **more, "model": data["model"] | more.get("model", {})})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_json(models.BPE({"a": 0}, []), model={"dropout": 0.1}), "tokenises at random"),
        (_json(models.WordLevel({"a": 0}, "a"), model={"vocab": {"a": 0, "b": 0}}), "two tokens with one id"),
        (_json(models.WordLevel({"a": 0}, "a"), model={"type": "Tekken"}), "the tokenizer's model is Tekken"),
        (_json(models.WordLevel({"a": 0}, "a"), post_processor={"type": "New"}), "post-processor is New"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        TokenizerJson(text)
