"""A tokenizer as the JSON of the `tokenizers` library: what it needs of its vocabulary, and the JSON with less of it.

Dropping tokens leaves every text whose tokens stay as it was:

WordPiece takes the longest piece that fits, BPE the merge of the lowest rank, Unigram the best sum of scores. What was
chosen is still there, and what could be chosen instead has only become less. (For Unigram that holds because the worst
score, which sets the price of an unknown character, stays; for BPE because of `bpc.vocabulary.merges`.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bpc.vocabulary.errors import VocabularyError
from bpc.vocabulary.merges import Merges, Pair

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_TABLES = ("WordPiece", "WordLevel", "BPE")  # {token: id}; Unigram has a list of [token, score]
_PLAIN_PROCESSORS = ("ByteLevel",)  # that hold no ids


class TokenizerJson:
    """``ids``: {token: id} of all tokens. ``own``: the ids of the model's; other added tokens come after them."""

    def __init__(self, text: str) -> None:
        self._data: dict[str, Any] = json.loads(text)
        self.model: dict[str, Any] = self._data["model"]
        self.kind: str = self.model.get("type", "without a type")
        if self.kind not in (*_TABLES, "Unigram"):
            raise VocabularyError(
                f"the tokenizer's model is {self.kind}; what dropping tokens does is known for WordPiece, WordLevel, "
                "BPE and Unigram"
            )
        if self.model.get("dropout"):
            raise VocabularyError("the tokenizer's BPE has dropout: it tokenises at random. Set it to None first")
        if self.kind in _TABLES:
            vocabulary: dict[str, int] = dict(self.model["vocab"])
        else:
            vocabulary = {token: i for i, (token, _) in enumerate(self.model["vocab"])}
            if len(vocabulary) < len(self.model["vocab"]):
                raise VocabularyError("the tokenizer has pieces twice: which of their ids is meant is not known")
        self.own = frozenset(vocabulary.values())
        added = {entry["content"]: entry["id"] for entry in self._data["added_tokens"]}
        self.ids = vocabulary | added
        if len(set(self.ids.values())) < len(self.ids):
            raise VocabularyError("the tokenizer has two tokens with one id, or one token with two: they cannot be cut")
        self.added = frozenset(added.values())
        self._merges = self._read_merges() if self.kind == "BPE" else None
        _with_ids(self._data["post_processor"], lambda token: token)  # refuses what it does not know

    @property
    def unknown(self) -> int | None:
        """The id of the unknown token."""
        if self.kind == "Unigram":
            return self.model.get("unk_id")
        return self.ids.get(self.model.get("unk_token") or "")

    def required(self, characters: Collection[str] | None = None) -> set[int]:
        """Ids that always stay: added tokens, the unknown token, bytes, and single characters.

        ``characters``: of the characters, only these; bytes stay in any case.
        """
        found = {*self.added} if self.unknown is None else {*self.added, self.unknown}
        wanted = None if any(_types(self._data, "ByteLevel")) else characters  # there, characters stand for bytes
        for token, index in self.ids.items():
            character = self._character(token)
            if _BYTE.fullmatch(token) or (character and (wanted is None or character in wanted)):
                found.add(index)
        if self.kind == "Unigram":
            scores = [score for _, score in self.model["vocab"]]
            found.add(scores.index(min(scores)))
        return found

    def needed(self, token: str) -> set[int]:
        """The ids that have to stay for a token to come out: its own, and those in between."""
        pairs = self._merges.needed(token) if self._merges is not None else ()
        return {self.ids[token], *(self.ids[part] for pair in pairs for part in pair)}

    def new_ids(self, kept: Collection[int]) -> dict[int, int]:
        """{id: new id}: in the old order, the model's own tokens first, as the library numbers them."""
        return {old: new for new, old in enumerate(sorted(kept, key=lambda index: (index not in self.own, index)))}

    def with_ids(self, new: Mapping[int, int]) -> str:
        """The JSON with the tokens of ``new``, {id: new id}, and no other."""
        data, model = dict(self._data), dict(self.model)
        if self.kind == "Unigram":
            model["vocab"] = [piece for index, piece in enumerate(model["vocab"]) if index in new]
            model["unk_id"] = None if model.get("unk_id") is None else new[model["unk_id"]]
        else:
            entries = ((token, new[index]) for token, index in model["vocab"].items() if index in new)
            model["vocab"] = dict(sorted(entries, key=lambda entry: entry[1]))
        if self._merges is not None:
            kept = {token for token, index in self.ids.items() if index in new}
            needed: set[Pair] = set().union(*map(self._merges.needed, kept & model["vocab"].keys()))
            model["merges"] = [list(pair) for pair in self._merges.pairs if pair in needed]
        data["model"] = model
        data["added_tokens"] = sorted(
            ({**entry, "id": new[entry["id"]]} for entry in data["added_tokens"]), key=lambda entry: entry["id"]
        )
        data["post_processor"] = _with_ids(data["post_processor"], new.__getitem__)
        if data.get("padding"):
            data["padding"] = data["padding"] | {"pad_id": new[data["padding"]["pad_id"]]}
        return json.dumps(data, ensure_ascii=False)

    def _read_merges(self) -> Merges:
        pairs = [tuple(entry.split(" ")) if isinstance(entry, str) else tuple(entry) for entry in self.model["merges"]]
        prefix, suffix = (self.model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix"))
        return Merges([(left, right) for left, right in pairs], prefix, affixed=bool(prefix or suffix))

    def _character(self, token: str) -> str | None:
        """The character that a token stands for, at the beginning, in the middle or at the end of a word."""
        if self.kind == "WordLevel":
            return None
        if len(token) > 1:
            token = token.removeprefix(self.model.get("continuing_subword_prefix") or "")
        if len(token) > 1:
            token = token.removesuffix(self.model.get("end_of_word_suffix") or "")
        return token if len(token) == 1 else None


def _with_ids(processor: dict[str, Any] | None, new: Any) -> dict[str, Any] | None:
    """A post-processor with other ids. Raises `VocabularyError` for one of an unknown kind."""
    if processor is None or processor["type"] in _PLAIN_PROCESSORS:
        return processor
    if processor["type"] == "Sequence":
        return processor | {"processors": [_with_ids(part, new) for part in processor["processors"]]}
    if processor["type"] in ("BertProcessing", "RobertaProcessing"):
        return processor | {key: [processor[key][0], new(processor[key][1])] for key in ("sep", "cls")}
    if processor["type"] == "TemplateProcessing":
        special = processor["special_tokens"].items()
        return processor | {
            "special_tokens": {name: entry | {"ids": [new(i) for i in entry["ids"]]} for name, entry in special}
        }
    raise VocabularyError(f"the tokenizer's post-processor is {processor['type']}, whose ids are not understood")


def _types(part: Any, kind: str) -> Iterator[bool]:
    """Whether some part of the pipeline, however deep, is of a kind."""
    if isinstance(part, dict):
        yield part.get("type") == kind
        for name, inner in part.items():
            if name not in ("model", "added_tokens"):
                yield from _types(inner, kind)
    elif isinstance(part, list):
        for inner in part:
            yield from _types(inner, kind)
