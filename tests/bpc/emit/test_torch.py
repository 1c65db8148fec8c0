from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import fx

from bpc.emit.torch import compile_graph, load_program, save_aot_package, save_program


def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 50, (batch, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def expected(graph: fx.GraphModule, feed: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return graph(**feed)["start_logits"]


def test_program_file_keeps_dynamic_sizes(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    module = load_program(save_program(tiny_graph, tmp_path / "m.pt2"))
    for batch, length in ((1, 9), (4, 3)):
        feed = inputs(batch, length)
        torch.testing.assert_close(module(**feed)["start_logits"], expected(tiny_graph, feed))
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        load_program(tmp_path / "absent.pt2")
    (tmp_path / "text.pt2").write_text("no program")
    with pytest.raises(ValueError, match="no program written by"):
        load_program(tmp_path / "text.pt2")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_compiled_graph_agrees(tiny_graph: fx.GraphModule) -> None:
    feed = inputs(2, 6)
    run = compile_graph(tiny_graph, dynamic=False)
    torch.testing.assert_close(run(**feed)["start_logits"], expected(tiny_graph, feed), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_ahead_of_time_package_agrees(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    run = torch._inductor.aoti_load_package(str(save_aot_package(tiny_graph, tmp_path / "m.pt2")))
    feed = inputs(3, 5)
    torch.testing.assert_close(run(**feed)["start_logits"], expected(tiny_graph, feed), atol=1e-4, rtol=1e-4)
