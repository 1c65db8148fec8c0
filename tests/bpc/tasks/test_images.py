"""Images in folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor

from bpc.tasks import TASKS, TaskError
from bpc.tasks.data import read_rows


def test_a_folder_a_class(tmp_path: Path) -> None:
    for name, colour in (("cats", "red"), ("dogs", "blue")):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (20, 12), colour).save(tmp_path / name / f"{i}.png")
    task = TASKS["image-classification"](ViTImageProcessor(size={"height": 8, "width": 8}))
    rows = task.check(read_rows(str(tmp_path)), "pictures")
    task.learn(rows)
    assert task.classes == ["cats", "dogs"]
    batch = task.collator()(list(task.encode(rows)))
    assert batch["pixel_values"].shape == (4, 3, 8, 8)
    assert batch["labels"].tolist() == [0, 0, 1, 1]
    counts = task.reduce({"logits": torch.eye(2)[[0, 1, 1, 1]]}, batch)
    assert counts.tolist() == [[1, 1], [0, 1], [1, 1], [1, 1]]
    (tmp_path / "dogs" / "1.png").write_bytes(b"no image")
    with pytest.raises(TaskError, match="cannot be read"):
        list(task.encode(task.check(read_rows(str(tmp_path)), "pictures")))
