"""``python -m examples.tweets``: the whole path on a real encoder and real text, in four minutes.

It writes the tweets as two CSV files and calls ``bpc prune`` with recipe.toml and a time budget; ``--full`` trains on
all of them, as long as it takes. What else is given goes to ``bpc prune``: ``--target-speedup 2.5``, ``--seed 1``.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from bpc.cli import app
from bpc.writing import new_file
from examples.tweets.data import LABELS, Tweet, encoder_directory, read_tweets, split_tweets, tweets_file

RECIPE = Path(__file__).with_name("recipe.toml")
QUICK, HELD_OUT = ["--minutes", "3.7"], 1000  # what is left of four once the libraries are loaded
FULL = ["--epochs", "2", "--fill-epochs", "1.5", "--target-density", "0.3"]
SERVE = """
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{out}/small")
session = onnxruntime.InferenceSession("{out}/small.onnx")
batch = tokenizer(["thank you so much", "late again"], padding=True, return_tensors="np")
(logits,) = session.run(None, {{i.name: batch[i.name] for i in session.get_inputs()}})
"""


def write_csv(tweets: Sequence[Tweet], file: Path) -> Path:
    """Columns text and label, as `bpc prune` reads them."""
    with new_file(file) as staged, staged.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label"])
        rows.writerows([tweet.text, LABELS[tweet.label]] for tweet in tweets)
    return file


def main(given: Sequence[str]) -> int:
    """Exit code of ``bpc prune``."""
    more = [word for word in given if word != "--full"]
    out = Path(more[more.index("--out") + 1]) if "--out" in more[:-1] else Path("out")
    data = out.with_name(f"{out.name}-data")
    data.mkdir(parents=True, exist_ok=True)
    split = split_tweets(read_tweets(tweets_file()))
    full = "--full" in given
    train = write_csv(split.train, data / "train.csv")
    test = write_csv(split.test if full else split.test[:HELD_OUT], data / "test.csv")
    options = {"--model": encoder_directory(), "--data": train, "--eval": test, "--out": out}
    words = ["prune", str(RECIPE), *(str(part) for option in options.items() for part in option)]
    code = app([*words, *(FULL if full else QUICK), *more], standalone_mode=False) or 0
    if code == 0 and (out / "small.onnx").exists():
        print(f"Serve it with ONNX Runtime and its tokenizer:\n{SERVE.format(out=out)}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
