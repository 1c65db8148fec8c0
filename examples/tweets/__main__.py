"""``python -m examples.tweets``: the whole path on a real encoder and real text, in four minutes.

It writes the tweets as two CSV files and calls ``bpc prune`` with recipe.toml and a time budget; ``--full`` takes the
time that the recipe needs. What else is given goes to ``bpc prune``: ``--target-speedup 2.5``, ``--seed 1``.
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
MINUTES = "3.8"  # what is left of four once the libraries are loaded
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
    train, test = write_csv(split.train, data / "train.csv"), write_csv(split.test, data / "test.csv")
    options = {"--model": encoder_directory(), "--data": train, "--eval": test, "--out": out}
    words = ["prune", str(RECIPE), *(str(part) for option in options.items() for part in option)]
    budget = [] if "--full" in given else ["--minutes", MINUTES]
    code = app([*words, *budget, *more], standalone_mode=False) or 0
    if code == 0 and (out / "small.onnx").exists():
        print(f"Serve it with ONNX Runtime and its tokenizer:\n{SERVE.format(out=out)}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
