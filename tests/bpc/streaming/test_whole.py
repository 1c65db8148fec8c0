"""Whole models run a layer at a time: the outputs are those of models in memory, and what differs is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from bpc.hub.sizes import tensors_of
from bpc.streaming import numbers, stream_shrink
from bpc.streaming.shards import write_shard
from bpc.streaming.whole import _run, compare_whole
from bpc.verify.runs import Inputs
from passes.verify.errors import VerificationError
from tests.bpc.cli.commands import run
from tests.bpc.streaming.test_shrink import CASES, made


class Counted(Mapping[str, Tensor]):
    """Numbers that say which of them were asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors, self.asked = dict(tensors), list[str]()

    def __getitem__(self, name: str) -> Tensor:
        self.asked.append(name)
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def pair(case: str, **changes: Any) -> tuple[nn.Module, nn.Module]:
    """(a model with numbers, the same on the meta device)."""
    kind, config, dtype = CASES[case]
    config = type(config).from_dict(config.to_dict() | changes)
    torch.manual_seed(0)
    model = kind(config).to(dtype).eval()
    with torch.device("meta"):
        shell = kind(config).to(dtype).eval()
    return model, shell


def inputs_of(case: str) -> dict[str, Any]:
    ids = torch.randint(3, 50, (2, 7))
    return {"input_ids": ids, "use_cache": False} | ({"decoder_input_ids": ids} if case == "t5" else {})


@pytest.mark.parametrize("case", sorted(CASES))
def test_outputs_are_those_of_the_model_in_memory(case: str) -> None:
    model, shell = pair(case)
    inputs = Inputs("2x7", (), inputs_of(case))
    with torch.no_grad():
        expected = model(**inputs.kwargs)[0]
    found = _run(shell, tensors_of(model), inputs, None)
    assert torch.equal(found[0], expected)
    assert all(tensor.is_meta for tensor in shell.parameters())


def test_layers_that_are_not_sampled_are_compared_too() -> None:
    """The second of five: neither the first, the middle nor the last."""
    model, shell = pair("llama", num_hidden_layers=5)
    weights = Counted(tensors_of(model))
    example = ((), inputs_of("llama"))
    done = compare_whole(shell, shell, weights, weights, example)
    assert done.worst is not None
    assert done.worst <= 1
    assert "2x7" in str(done)
    name = "model.layers.1.mlp.down_proj.weight"
    assert weights.asked.count(name) == 3  # masked, masked in a wider precision, small
    other = dict(weights) | {name: weights.tensors[name] + 1}
    with pytest.raises(VerificationError, match=r"times as far from the masked one .* run whole"):
        compare_whole(shell, shell, weights, other, example)
    with pytest.raises(VerificationError, match=r"the small model: .* is not finite"):
        compare_whole(shell, shell, weights, dict(weights) | {name: weights.tensors[name] * torch.nan}, example)
    refused = compare_whole(shell, shell, dict(weights) | {name: weights.tensors[name] * torch.nan}, weights, example)
    assert refused.worst is None
    assert "were not run: " in str(refused)


def test_the_command_runs_what_it_wrote(tmp_path: Path) -> None:
    made("llama", tmp_path, "9KB")
    paths = ("--model", tmp_path / "model", "--masks", tmp_path / "masks.safetensors", "--out", tmp_path / "small")
    refused = run("shrink", "--whole", *paths)
    assert refused.exit_code != 0
    assert "--whole goes with --stream" in refused.output
    done = run("shrink", "--stream", "--whole", *paths)
    assert done.exit_code == 0, done.output
    assert "both models were run whole" in done.output
    assert '"whole"' in (tmp_path / "small" / "certificate.json").read_text()
    assert run("verify", tmp_path / "small").exit_code == 0
    assert hf.LlamaForCausalLM.from_pretrained(tmp_path / "small") is not None


def test_what_is_run_are_the_numbers_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("llama", tmp_path, "50GB")
    shell = hf.LlamaForCausalLM.from_pretrained(tmp_path / "model", device_map="meta")

    def write_others(path: Path, shapes: Any, make: Any) -> str:
        sha256 = write_shard(path, shapes, make)
        content = bytearray(path.read_bytes())
        content[-64:] = torch.full((32,), 9.0, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
        path.write_bytes(content)
        return sha256

    monkeypatch.setattr(numbers, "write_shard", write_others)
    arguments = (shell, tmp_path / "model", tmp_path / "masks.safetensors", tmp_path / "small", inputs_of("llama"))
    stream_shrink(*arguments)  # sampled layers are made anew
    with pytest.raises(VerificationError, match="run whole"):
        stream_shrink(*arguments, whole=True)
