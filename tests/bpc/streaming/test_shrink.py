"""Checkpoints shrunk tensor by tensor, against the same shrunk in memory, bit for bit."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import nn

import passes
from bpc.dense import DenseModel, load
from bpc.inputs import example_inputs
from bpc.results import read_result
from bpc.scores.files import multiply_masks, save_masks
from bpc.streaming import StreamError, shrink, stream_shrink
from bpc.streaming.layers import compare_layers
from bpc.streaming.shrink import STAGING
from passes.verify.errors import VerificationError
from tests.bpc.cli.commands import run

CASES = {
    "llama": (  # grouped heads, tied embeddings, biases, bfloat16
        hf.LlamaForCausalLM,
        hf.LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True, attention_bias=True,
        ),
        torch.bfloat16,
    ),
    "t5": (  # one table of positions for all layers; a number that equals a width by accident (32 buckets)
        hf.T5ForConditionalGeneration,
        hf.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4),
        torch.float32,
    ),
}  # fmt: skip


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Rows of what is wide, the first 16 of values, single entries of keys."""
    masks = {}
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        rows, columns = parameter.shape if parameter.dim() == 2 else (0, 0)
        *_, layer, kind = name.split(".")
        if kind == "weight" and layer in ("gate_proj", "up_proj", "wi"):
            masks[name] = (torch.rand(rows, 1) > 0.4).expand(rows, columns)
        elif kind == "weight" and layer in ("v_proj", "v"):
            masks[name] = (torch.arange(rows) >= 8)[:, None].expand(rows, columns)
        elif kind == "weight" and layer in ("k_proj", "k"):
            masks[name] = torch.rand(rows, columns) > 0.1
    return masks


def made(case: str, folder: Path, size: str, **changes: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A random model, saved in ``folder / "model"``, and masks in ``folder / "masks.safetensors"``."""
    kind, config, dtype = CASES[case]
    config = type(config).from_dict(config.to_dict() | changes)
    torch.manual_seed(0)
    model = kind(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / "model", max_shard_size=size)
    masks = masks_of(model)
    save_masks(masks, folder / "masks.safetensors")
    return model, masks


def stored(directory: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in directory.glob("model*.safetensors") for name, t in load_file(file).items()}


def test_files_hold_what_shrinking_in_memory_gives(tmp_path: Path) -> None:
    model, masks = made("llama", tmp_path, "9KB")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks.safetensors").rename(tmp_path / "masks" / "model.safetensors")
    done = run(
        "shrink", "--stream", "--model", tmp_path / "model", "--masks", tmp_path / "masks",
        "--out", tmp_path / "small", "--max-shard-size", "9KB",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "2 layers compared on random inputs" in done.output
    assert (tmp_path / "small" / "model.safetensors.index.json").exists()
    assert not (tmp_path / "small" / STAGING).exists()
    result = passes.shrink(passes.trace(model, example_inputs(model)), masks, verify=False)
    multiply_masks(model, masks)
    DenseModel.from_shrink(result, model).save_pretrained(tmp_path / "memory")
    expected, found = stored(tmp_path / "memory"), stored(tmp_path / "small")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    config, same = ((tmp_path / name / "config.json").read_text() for name in ("small", "memory"))
    assert config == same
    loaded = hf.LlamaForCausalLM.from_pretrained(tmp_path / "small")
    assert loaded.model.layers[0].self_attn.v_proj.out_features == 8
    figures = {figure.name: figure for figure in read_result(tmp_path / "small" / "result.json").figures}
    parameters = figures["parameters"]
    assert parameters.original is not None
    assert parameters.small is not None
    assert parameters.original.value == sum(p.numel() for p in model.parameters())
    assert parameters.small.value == sum(p.numel() for p in loaded.parameters())
    assert figures["largest difference of a layer, in units of what rounding costs it"].sample is not None


def test_numbers_of_the_forward_are_chosen_by_what_layers_compute(tmp_path: Path) -> None:
    """32 buckets are no width, though the shapes would allow it."""
    model, masks = made("t5", tmp_path, "50GB")
    shell = hf.T5ForConditionalGeneration.from_pretrained(tmp_path / "model", device_map="meta")
    done = stream_shrink(shell, tmp_path / "model", masks, tmp_path / "small", example_inputs(shell))
    numbers = done.view.plan.attributes["encoder.block.0.layer.0.SelfAttention"]
    assert (numbers["n_heads"], numbers["inner_dim"]) == (3, 24)
    assert "relative_attention_num_buckets" not in numbers
    multiply_masks(model, masks)
    ids = torch.randint(3, 50, (2, 40))
    small: Any = load(tmp_path / "small").module
    inputs = {"input_ids": ids, "decoder_input_ids": ids}
    torch.testing.assert_close(small(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_a_stopped_run_goes_on_from_its_last_whole_file(tmp_path: Path) -> None:
    _, masks = made("llama", tmp_path, "50GB", num_hidden_layers=1)
    out = tmp_path / "small"

    def shrink_until(stop: int | None = None, **options: Any) -> Any:
        shell = hf.LlamaForCausalLM.from_pretrained(tmp_path / "model", device_map="meta")

        def step(file: str, number: int, total: int) -> None:
            if number == stop:
                (out / STAGING / file).write_bytes(b"half of it")
                raise KeyboardInterrupt

        example = {"input_ids": torch.ones(2, 5, dtype=torch.long), "use_cache": False}
        settings = {"max_shard_size": "4KB", "verify": False, "step": step, **options}
        return stream_shrink(shell, tmp_path / "model", tmp_path / "masks.safetensors", out, example, **settings)

    with pytest.raises(KeyboardInterrupt):
        shrink_until(stop=2)
    assert not (out / "config.json").exists()
    before = {file.name: file.stat().st_mtime_ns for file in (out / STAGING).glob("*-0000[12]-*")}
    done = shrink_until()
    assert (done.resumed, len(before)) == (2, 2)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    load(out)  # compares the hashes
    whole = stored(out)
    with pytest.raises(KeyboardInterrupt):
        shrink_until(stop=2)
    save_masks({name: mask for name, mask in masks.items() if "v_proj" not in name}, tmp_path / "masks.safetensors")
    other = shrink_until()
    assert other.resumed == 0  # the masks are others
    assert any(not torch.equal(tensor, whole[name]) for name, tensor in stored(out).items())


def test_a_layer_that_differs_ends_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("llama", tmp_path, "50GB")
    shell = hf.LlamaForCausalLM.from_pretrained(tmp_path / "model", device_map="meta")
    differs, steps = Event(), list[int]()

    def compare(*arguments: Any, first: bool = False, **options: Any) -> Any:
        if first:
            return compare_layers(*arguments, first=True, **options)
        differs.set()
        raise VerificationError("layer 1 differs")

    def step(file: str, number: int, total: int) -> None:
        steps.append(total)
        assert differs.wait(10)
        sleep(0.1)  # the error is on its way

    monkeypatch.setattr(shrink, "compare_layers", compare)
    example = {"input_ids": torch.ones(2, 5, dtype=torch.long), "use_cache": False}
    arguments = (shell, tmp_path / "model", tmp_path / "masks.safetensors", tmp_path / "small", example)
    with pytest.raises(VerificationError, match="layer 1 differs"):
        stream_shrink(*arguments, max_shard_size="4KB", step=step)
    assert not steps or len(steps) < steps[0]
    assert not (tmp_path / "small" / "config.json").exists()


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    made("llama", tmp_path, "50GB")
    shell = hf.LlamaForSequenceClassification.from_pretrained(tmp_path / "model", device_map="meta")
    with pytest.raises(StreamError, match=r"has no tensor 'score.weight' \(1 such weights\).*Leave out --stream"):
        stream_shrink(shell, tmp_path / "model", None, tmp_path / "small", {"input_ids": torch.ones(2, 5).long()})
