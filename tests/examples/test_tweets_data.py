from pathlib import Path

import pytest

from examples.tweets.data import LABELS, Tweet, clean, package_directory, read_tweets, split_tweets, tweets_file


def write(path: Path, *rows: tuple[str, str]) -> Path:
    lines = ["sentiment,confidence,text", *(f'{label},1,"{text}"' for label, text in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_clean_decodes_entities_and_cuts_links() -> None:
    assert clean("late &amp;  lost � see http://t.co/x1Y, ok") == "late & lost see http ok"


def test_near_duplicates_are_one_tweet_with_the_majority_label(tmp_path: Path) -> None:
    tweets = read_tweets(
        write(
            tmp_path / "tweets.csv",
            ("negative", "RT @a: so late! http://t.co/1"),
            ("negative", "rt @a so LATE http://t.co/2"),
            ("positive", "RT @a: so late!! http://t.co/3"),
            ("neutral", "no agreement"),
            ("positive", "No agreement."),
            ("positive", "thanks"),
            ("neutral", "  ...  "),
        )
    )
    assert sorted((t.text, LABELS[t.label]) for t in tweets) == [
        ("RT @a: so late! http", "negative"),
        ("thanks", "positive"),
    ]


def test_split_is_stratified_disjoint_and_independent_of_the_training_size() -> None:
    tweets = [Tweet(f"tweet {i}", 0 if i % 4 else 1) for i in range(400)]
    whole, part = split_tweets(tweets, held_out=40), split_tweets(tweets, held_out=40, train_size=50)
    assert len(whole.test) == 40
    assert sum(t.label for t in whole.test) == 10
    assert not set(whole.train) & set(whole.test)
    assert part.test == whole.test
    assert part.train == whole.train[:50]


def test_the_real_corpus_leaves_three_thousand_held_out_and_no_leak() -> None:
    split = split_tweets(read_tweets(tweets_file()))
    assert len(split.test) >= 3000
    assert len(split.train) > 30_000
    assert not {t.text.lower() for t in split.train} & {t.text.lower() for t in split.test}


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"\[examples\]"):
        package_directory("no_such_package_here")
