"""`trim_vocabulary`: a model and its tokenizer, with the tokens that a corpus uses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

from torch import nn

from bpc.dense import DenseModel
from bpc.hub.note import note_of
from bpc.hub.sizes import note_sizes
from bpc.inputs import example_inputs
from bpc.vocabulary.check import compare_models, renumbered
from bpc.vocabulary.corpus import Coverage, Limits, choose, compare, count_tokens
from bpc.vocabulary.embeddings import cut_vocabulary, vocabulary_rows
from bpc.vocabulary.errors import VocabularyError
from bpc.vocabulary.ids import configs_of, referred_ids
from bpc.vocabulary.rebuild import backend_json, bare, rebuilt
from bpc.vocabulary.report import Size, TrimReport
from bpc.vocabulary.tokenizer_json import TokenizerJson
from passes.verify.errors import VerificationError

Characters = Literal["all", "used"]
_Model = TypeVar("_Model", bound=nn.Module | DenseModel)
_COMPARED, _LENGTH = 16, 64  # texts that the models run on, and tokens of each


def trim_vocabulary(
    model: _Model,
    tokenizer: Any,
    texts: Iterable[str],
    *,
    keep_tokens: int | None = None,
    min_count: int = 1,
    coverage: float | None = None,
    characters: Characters = "all",
    held_out: Iterable[str] | None = None,
) -> tuple[_Model, Any, TrimReport]:
    """Keep the tokens that ``texts`` use, and drop the rest from the tokenizer, the embeddings and the configs.

    What stays in any case: special and added tokens, bytes, single characters, and those that a config names. Texts of
    kept tokens are tokenised as before, and the model computes the same for them; logits are the full model's at the
    kept tokens. Both are checked before anything is returned. Weights that do not depend on the vocabulary are shared
    with ``model``, which is left as it is.

    Args:
        model: of transformers, or a `bpc.DenseModel`; what comes back is of the same kind.
        tokenizer: its tokenizer, of the `tokenizers` library.
        keep_tokens: size of the new vocabulary at most; the most frequent tokens stay.
        min_count: occurrences that keep a token.
        coverage: keep no more of the most frequent tokens than cover this share (0 to 1) of the texts' tokens.
        characters: "used" keeps only those single characters that occur in the texts; others become unknown.
        held_out: texts whose coverage the report tells as well.

    Raises `bpc.vocabulary.errors.VocabularyError` for what cannot be reduced, and `passes.VerificationError` where
    tokens or outputs would not be the same.
    """
    network: Any = model.module if isinstance(model, DenseModel) else model
    rows, source = vocabulary_rows(network), backend_json(tokenizer)
    content, full, texts = TokenizerJson(source), bare(source), _texts(texts)
    if beyond := {token for token, index in content.ids.items() if index >= rows}:
        raise VocabularyError(
            f"the tokenizer has {min(beyond)!r} and {len(beyond) - 1} more tokens that the embedding of {rows} rows "
            "has none for: is it this model's tokenizer?"
        )
    tokens = {index: token for token, index in content.ids.items()}
    counts = count_tokens(full, texts)
    named = set().union(*(referred_ids(config, rows) for config in configs_of(network, rows)))
    used = None if characters == "all" else set("".join(tokens[index] for index in counts))
    required = content.required(used) | (named & tokens.keys())
    limits = Limits(keep_tokens, min_count, coverage)
    new = content.new_ids(choose(counts, required, lambda index: content.needed(tokens[index]), limits))
    small_tokenizer = rebuilt(tokenizer, content.with_ids(new), {tokens[old]: i for old, i in new.items()})
    small = bare(backend_json(small_tokenizer))
    covered = compare(full, small, new, texts, content.unknown)
    outside = None if held_out is None else compare(full, small, new, _texts(held_out), content.unknown)
    kept = [*new, *sorted(named - tokens.keys())]  # such as padding to an even size that a config calls a token
    trimmed, dims = cut_vocabulary(network, kept)
    if note_of(network.config):
        note_sizes(trimmed, before=note_of(network.config))
    difference, compared = _verify(network, trimmed, (tokenizer, small_tokenizer), new, covered)
    report = TrimReport(
        before=Size.of(network, rows),
        after=Size.of(trimmed, len(kept)),
        required=len(required),
        used=len(counts),
        corpus=covered,
        held_out=outside,
        difference=difference,
        compared=compared,
    )
    if isinstance(model, DenseModel):
        args, kwargs = model.example_inputs
        given = inspect.signature(network.forward).bind(*args, **kwargs).arguments
        example = renumbered(given | given.pop("kwargs", {}), new)
        return model.resized(trimmed, dims, ((), example)), small_tokenizer, report  # type: ignore[return-value]
    return trimmed, small_tokenizer, report  # type: ignore[return-value]


def _texts(texts: Iterable[str]) -> Sequence[str]:
    found = [text for text in texts if text.strip()]
    if not found:
        raise VocabularyError("there are no texts: a vocabulary is reduced to what some texts use")
    return found


def _verify(
    full: nn.Module, small: nn.Module, tokenizers: tuple[Any, Any], new: dict[int, int], covered: Coverage
) -> tuple[float, int]:
    """The largest difference of the outputs on texts of the corpus, and on how many it was measured."""
    chosen = covered.examples[:: max(1, len(covered.examples) // _COMPARED)][:_COMPARED]
    if not chosen:
        raise VocabularyError(
            "not one of the texts consists of kept tokens, so nothing can be verified: keep more tokens"
        )
    positions = getattr(getattr(full, "config", None), "max_position_embeddings", None) or _LENGTH
    before, after = (
        [dict(t(text, truncation=True, max_length=min(_LENGTH, positions))) for text in chosen] for t in tokenizers
    )
    for text, old, now in zip(chosen, before, after, strict=True):
        if old | {"input_ids": [new[index] for index in old["input_ids"]]} != now:
            raise VerificationError(f"the reduced tokenizer makes {now} of {text[:80]!r}, the full one {old}")
    pad = tokenizers[0].pad_token_id
    example = example_inputs(full, tokenizers[0])
    return compare_models(full, small, new, before, example, pad), len(chosen)
