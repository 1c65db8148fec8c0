"""Files as rows, and what is said of those that are none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bpc.tasks import TASKS, TaskError
from bpc.tasks.data import read_rows, read_texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "text,label\n", "has no rows"),
        ("d.csv", "", "has no rows"),
        ("d.csv", "text,text\na,b\n", "two columns have one name"),
        ("d.csv", "text,label\na,b,c,d\n", "cannot be read: Length of header"),
        ("d.jsonl", '{"text": "a", "label": 1}\n{oops\n', "line 2 is not JSON"),
        ("d.jsonl", '{"text": "a", "label": 1}\n[1]\n', "line 2 is no JSON object"),
        ("d.json", "{", "cannot be read"),
        ("d.xlsx", "", "data files are .csv, .tsv, .jsonl"),
        ("d.json", '{"data": [{"paragraphs": [{"qas": [{"question": "?"}]}]}]}', "not laid out as SQuAD"),
    ],
)
def test_bad_data_is_explained(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TaskError, match=re.escape(message)):
        read_rows(str(tmp_path / name))


def test_data_in_another_encoding_is_explained(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    with pytest.raises(TaskError, match=r"is not UTF-8 \(byte 14"):
        read_rows(str(tmp_path / "d.csv"))


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub() -> None:
    for name in ("nothing.csv", "./nothing", "/no/such/place"):
        with pytest.raises(TaskError, match="there is no such file"):
            read_rows(name)


def test_tables_of_every_kind_read_alike(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('\ufefftext,label,more\n"a, b",1,x\nc,,y\nNA,3,z\n', encoding="utf-8")
    (tmp_path / "d.tsv").write_text("label\ttext\n1\ta, b\n3\tNA\n")
    (tmp_path / "d.jsonl").write_text('{"text": "a, b", "label": 1}\n\n{"text": "c", "label": null}\n')
    with (tmp_path / "d.jsonl").open("a") as file:
        file.write('{"text": "NA", "label": 3}\n')
    task = TASKS["classification"](None)
    task.classes = ["1", "3"]
    for name in ("d.csv", "d.tsv", "d.jsonl"):
        rows = task.check(read_rows(str(tmp_path / name)), name)
        assert rows["text"] == ["a, b", "NA"], name
        assert task.labels(rows) == [0, 1], name  # type: ignore[attr-defined]


def test_squads_layout_is_flattened(tmp_path: Path) -> None:
    asked = {"question": "Who?", "id": "1", "answers": [{"text": "Ada", "answer_start": 0}]}
    content = {"version": "1.1", "data": [{"paragraphs": [{"context": "Ada wrote it.", "qas": [asked]}]}]}
    (tmp_path / "d.json").write_text(json.dumps(content))
    assert read_rows(str(tmp_path / "d.json"))[0] == {
        "question": "Who?",
        "context": "Ada wrote it.",
        "answers": {"text": ["Ada"], "answer_start": [0]},
    }


def test_texts_alone_come_from_lines_or_columns(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\ufeffa, b\n\n c\n", encoding="utf-8")
    (tmp_path / "t.csv").write_text('words,label\n"a, b",\n c,1\n,1\n')
    assert (
        read_texts(str(tmp_path / "t.txt"), "words") == read_texts(str(tmp_path / "t.csv"), "words") == ["a, b", " c"]
    )
    assert read_texts(str(tmp_path / "t.csv"), "words", "label") == [(" c", "1")]
    with pytest.raises(TaskError, match="has no column 'text'; its columns: words, label"):
        read_texts(str(tmp_path / "t.csv"))
    (tmp_path / "t.txt").write_text("\n")
    with pytest.raises(TaskError, match="has no texts"):
        read_texts(str(tmp_path / "t.txt"))
