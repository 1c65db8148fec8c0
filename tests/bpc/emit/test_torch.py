from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import fx, nn
from torch.export import Dim

import passes
from bpc.emit.torch import compile_graph, load_program, save_aot_package, save_program
from passes.frontend.trace import exported_program
from passes.ir.info import InputError


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


class Apart(nn.Module):
    """Single rows and odd lengths are treated apart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[0] == 1 or x.shape[1] % 2 else x * 2


def test_program_files_refuse_what_the_graph_refuses(tmp_path: Path) -> None:
    graph = passes.trace(Apart(), torch.randn(4, 6))
    module = load_program(save_program(graph, tmp_path / "m.pt2"))
    torch.testing.assert_close(module(x := torch.randn(3, 4)), x * 2)
    for shape, message in (((1, 4), "longer than 1"), ((3, 5), "% 2")):
        with pytest.raises(InputError, match=message):
            module(torch.randn(shape))
    others = torch.export.export(Apart(), (torch.randn(4, 6),), dynamic_shapes=((Dim.AUTO, Dim.AUTO),))
    torch.export.save(others, tmp_path / "others.pt2")
    with pytest.raises(AssertionError, match="Guard failed"):
        load_program(tmp_path / "others.pt2")(torch.randn(3, 5))


def test_conditions_in_a_file_are_no_code(tmp_path: Path) -> None:
    """A guard becomes a line of the module, so a file's may only compute with sizes."""
    program = exported_program(passes.trace(nn.Linear(3, 2), torch.randn(4, 3)))
    text = json.dumps([{"condition": "open('written', 'w')", "message": "", "given": "1"}])
    torch.export.save(program, tmp_path / "m.pt2", extra_files={"bpc_guards.json": text})
    with pytest.raises(ValueError, match="holds more than conditions on the sizes"):
        load_program(tmp_path / "m.pt2")


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
