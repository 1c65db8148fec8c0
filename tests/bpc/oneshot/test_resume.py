"""What is kept of a run, and for whom."""

from __future__ import annotations

from pathlib import Path

import torch

import passes
from bpc.oneshot.batches import trace_example
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import Setting
from bpc.oneshot.resume import Saved
from bpc.oneshot.search import Selection
from bpc.oneshot.stream import Original
from bpc.oneshot.sublayers import find_sublayers
from passes.structure.roles import find_roles
from tests.bpc.oneshot.models import made


def test_the_same_run_goes_on_and_others_begin_anew(tmp_path: Path) -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    layer = find_sublayers(graph, find_roles(graph))[0]
    saved = Saved(tmp_path / "state", Original.of(graph), batches, Setting())
    assert saved.ladders() == {}
    ladder = Ladder((2, 0, 1, 3), {0: 0.5, 2: 0.125})
    saved.add_ladder(layer, ladder)
    again = Saved(tmp_path / "state", Original.of(graph), batches, Setting())
    assert again.ladders() == {layer.name: ladder}
    assert Saved(tmp_path / "state", Original.of(graph), batches[:3], Setting()).ladders() == {}
    assert Saved(tmp_path / "state", Original.of(graph), batches, Setting(ridge=0.5)).ladders() == {}
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert Saved(tmp_path / "state", Original.of(graph), batches, Setting()).ladders() == {}


def test_files_that_are_no_state_are_left_aside(tmp_path: Path) -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    for text in ("", "[]", "{", '{"of": 3}', "null"):
        (tmp_path / "one-shot.json").write_text(text)
        assert Saved(tmp_path, Original.of(graph), batches, Setting()).ladders() == {}
    assert Saved(None, Original.of(graph), batches, Setting()).ladders() == {}


def test_refitted_weights_are_of_one_choice_and_go_in_the_end(tmp_path: Path) -> None:
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    layer, other = find_sublayers(graph, find_roles(graph))[:2]
    saved = Saved(tmp_path, Original.of(graph), batches, Setting())
    saved.add_ladder(layer, Ladder((2, 0, 1, 3), {0: 0.5}))
    kept = {layer.name: 2, other.name: 5}
    selection = Selection(kept)
    saved.add_repaired(selection, layer, {layer.weight: torch.eye(3)})
    (tmp_path / "repaired-0.safetensors").write_bytes(b"cut off")
    again = Saved(tmp_path, Original.of(graph), batches, Setting())
    assert list(again.repaired(selection)) == [layer.name]
    assert torch.equal(again.repaired(selection)[layer.name][layer.weight], torch.eye(3))
    assert again.repaired(Selection({**kept, other.name: 4})) == {}
    assert Saved(tmp_path, Original.of(graph), batches, Setting(ridge=0.5)).repaired(selection) == {}
    again.drop_repaired()
    assert again.repaired(selection) == {}
    assert [file.name for file in tmp_path.iterdir()] == ["one-shot.json"]
    Saved(None, Original.of(graph), batches, Setting()).add_repaired(selection, layer, {})
