"""Tables of labelled texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpc.cli.data import Columns, LabelledTexts, labels_of, read_table, read_texts
from bpc.cli.models import load_tokenizer
from bpc.terminal.errors import CommandError


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "txt,label\na,b\n", "has no column 'text'; its columns: txt, label"),
        ("d.csv", "text,label\n", "has no rows"),
        ("d.csv", "text,label\n,x\n", "no row has all of text, label"),
        ("d.jsonl", '{"text": "a", "label": 1}\n{oops\n', "line 2 is not JSON"),
        ("d.xlsx", "", "data files are .csv, .tsv or .jsonl"),
        ("d.csv", f"text,label\n{'a' * 140_000},x\n", "cannot be read as CSV: field larger than field limit"),
    ],
)
def test_bad_data_is_explained(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CommandError, match=re.escape(message)):
        read_table(tmp_path / name, Columns())


def test_data_in_another_encoding_is_explained(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    with pytest.raises(CommandError, match=r"is not UTF-8 \(byte 14"):
        read_table(tmp_path / "d.csv", Columns())


def test_tables_of_every_kind_read_alike(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('\ufefftext,label,more\n"a, b",1,x\nc,,y\n', encoding="utf-8")
    (tmp_path / "d.tsv").write_text("label\ttext\n1\ta, b\n")
    (tmp_path / "d.jsonl").write_text('{"text": "a, b", "label": 1}\n{"text": "c", "label": null}\n')
    for name in ("d.csv", "d.tsv", "d.jsonl"):
        assert read_table(tmp_path / name, Columns()) == [{"text": "a, b", "label": "1"}], name


def test_texts_alone_come_from_lines_or_a_column(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\ufeffa, b\n\n c\n", encoding="utf-8")
    (tmp_path / "t.csv").write_text('words,label\n"a, b",\n c,1\n,1\n')
    assert read_texts(tmp_path / "t.txt", "words") == read_texts(tmp_path / "t.csv", "words") == ["a, b", " c"]
    (tmp_path / "t.txt").write_text("\n")
    with pytest.raises(CommandError, match="has no lines of text"):
        read_texts(tmp_path / "t.txt", "text")
    (tmp_path / "t.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(CommandError, match="is not UTF-8"):
        read_texts(tmp_path / "t.txt", "text")


def test_labels_that_are_numbers_keep_their_order() -> None:
    rows = [{"label": label} for label in ("10", "9", "-1", "9")]
    assert labels_of(rows, Columns()) == ["-1", "9", "10"]
    assert labels_of([*rows, {"label": "b"}], Columns()) == ["-1", "10", "9", "b"]


def test_pairs_are_tokenised_together_and_cut_to_the_length(model_directory: Path) -> None:
    columns = Columns("first", "second", "class")
    rows = [{"first": "the film", "second": "was good", "class": "pos"}]
    tokenizer = load_tokenizer(model_directory)
    whole, cut = (LabelledTexts(rows, columns, ["neg", "pos"], tokenizer, length)[0] for length in (16, 5))
    assert tokenizer.convert_ids_to_tokens(whole["input_ids"]) == (
        ["[CLS]", "the", "film", "[SEP]", "was", "good", "[SEP]"]
    )
    assert whole["labels"] == 1
    assert len(cut["input_ids"]) == 5
    with pytest.raises(CommandError, match="label 'pos' is not one of neg, mixed"):
        LabelledTexts(rows, columns, ["neg", "mixed"], tokenizer, 16)


def test_blank_lines_of_json_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": 1}\n\n{"text": "b", "label": 0}\n\n')
    assert len(read_table(tmp_path / "d.jsonl", Columns())) == 2
