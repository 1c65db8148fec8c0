"""Tokenizers of every kind, trained on a few lines."""

from __future__ import annotations

import random
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_SYLLABLES = ["ba", "lo", "mi", "tren", "ka", "sol", "ver", "é", "dun", "ix", "oo", "pra"]


def corpus(seed: int = 0, lines: int = 300) -> list[str]:
    """Texts of words made of syllables, some of them far more frequent than others."""
    of_words, chosen = random.Random(0), random.Random(seed)
    words = ["".join(of_words.choices(_SYLLABLES, k=of_words.randint(1, 4))) for _ in range(120)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [" ".join(chosen.choices(words, weights, k=chosen.randint(1, 9))) for _ in range(lines)]


def tokenizer(kind: str) -> Any:
    """A transformers tokenizer: "wordpiece", "bytes" (byte-level BPE), "fallback" (BPE over characters, with bytes for
    the others), "suffix" (BPE whose words end in </w>), "unigram" or "words"."""
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    unk: Any = "<unk>"
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token=unk))
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=260, special_tokens=special)
    elif kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet)
    elif kind == "fallback":
        made = Tokenizer(models.BPE(unk_token=unk, byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        letters = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=450, special_tokens=[*special, *letters])
    elif kind == "suffix":
        made = Tokenizer(models.BPE(unk_token=unk, end_of_word_suffix="</w>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=special, end_of_word_suffix="</w>")
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=special, unk_token=unk)
    else:
        made = Tokenizer(models.WordLevel(unk_token=unk))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(special_tokens=special)
    made.train_from_iterator(corpus(), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


KINDS = ("wordpiece", "bytes", "fallback", "suffix", "unigram", "words")
