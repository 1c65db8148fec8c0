"""Sizes are read off a small module and given to what its config makes; what a config cannot say is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, PreTrainedModel

import passes
from bpc.dense import DenseModel, load
from bpc.hub.note import Note, NoteError, note_of
from bpc.hub.resize import resize
from bpc.hub.sizes import differences, unsavable


class Scaled(PreTrainedModel):
    """A layer without bias, whose units have constants that checkpoints leave out."""

    config_class = BertConfig
    base_model_prefix = "core"

    def __init__(self, config: BertConfig, units: int = 0) -> None:
        super().__init__(config)
        size = config.intermediate_size
        self.units = size
        self.up, self.down = nn.Linear(config.hidden_size, size), nn.Linear(size, 4, bias=False)
        self.register_buffer("scale", torch.arange(1.0, size + 1), persistent=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Scaled):
            with torch.no_grad():
                module.scale.copy_(torch.arange(1.0, len(module.scale) + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.tanh(self.up(x)) * self.scale)


X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


def _shrunk(model: Scaled, *, constant: int | None = None, dead: slice) -> tuple[DenseModel, torch.Tensor]:
    with torch.no_grad():
        model.down.weight[:, dead] = 0
        if constant is not None:
            model.up.weight[constant] = 0
            model.up.bias[constant] = 0.5
        expected = model(X)
    return DenseModel.from_shrink(passes.shrink(passes.trace(model, X)), model), expected


@pytest.fixture
def model() -> Scaled:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=8, intermediate_size=12, num_attention_heads=2)
    return Scaled(config).eval()


def test_constants_and_new_biases_come_back_after_two_shrinks(model: Scaled, tmp_path: Path) -> None:
    first, expected = _shrunk(model, constant=5, dead=slice(0, 2))
    note = note_of(first.config)
    assert note.biases == {"down.bias": 4}
    assert note.kept["scale"][0] == (2, 3, 4, *range(6, 12))
    first.module.save_pretrained(tmp_path / "once")
    again = Scaled.from_pretrained(tmp_path / "once")
    with torch.no_grad():
        torch.testing.assert_close(again(X), expected, atol=1e-5, rtol=1e-5)
    second, expected = _shrunk(again, dead=slice(1, 3))
    assert note_of(second.config).kept["scale"][0] == (2, *range(6, 12))
    second.save_pretrained(tmp_path / "twice")
    for twice in (Scaled.from_pretrained(tmp_path / "twice"), load(tmp_path / "twice", model_class=Scaled).module):
        with torch.no_grad():
            torch.testing.assert_close(twice(X), expected, atol=1e-5, rtol=1e-5)


def test_a_model_of_its_full_size_has_no_note(model: Scaled) -> None:
    assert not differences(copy.deepcopy(model), model, (), Note())


def test_another_config_is_noticed_before_anything_is_resized_wrongly(model: Scaled) -> None:
    dense, _ = _shrunk(model, dead=slice(0, 2))
    other = Scaled(BertConfig(hidden_size=8, intermediate_size=16, num_attention_heads=2))
    with pytest.raises(NoteError, match=r"made from 12 in dim 0 of up\.\w+, and the config makes \(16"):
        resize(other, note_of(dense.config))


def test_what_a_config_cannot_make_is_not_saved(model: Scaled, tmp_path: Path) -> None:
    class Extra(Scaled):
        def __init__(self, config: BertConfig, more: int) -> None:
            super().__init__(config)

    extra = Extra(model.config, 1).eval()
    dense, expected = _shrunk(extra, dead=slice(0, 2))
    with torch.no_grad():
        torch.testing.assert_close(dense.module(X), expected, atol=1e-5, rtol=1e-5)
    assert "missing 1 required positional argument: 'more'" in unsavable(dense.module)
    with pytest.raises(NoteError, match="Extra cannot be made from its config alone"):
        dense.save_pretrained(tmp_path / "x")


def test_another_tools_note_is_left_alone(model: Scaled, tmp_path: Path) -> None:
    config: Any = model.config
    config.quantization_config = {"quant_method": "fp8"}
    dense, _ = _shrunk(model, dead=slice(0, 2))
    with pytest.raises(NoteError, match="dequantize it before shrinking"):
        dense.save_pretrained(tmp_path / "x")
    assert dense.config.quantization_config == {"quant_method": "fp8"}
