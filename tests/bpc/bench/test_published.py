from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

import passes
from bpc.bench import __main__ as commands
from bpc.bench.published import PublishedModel, published_model, published_models, published_points, structure_masks
from bpc.results import Result, read_result
from passes.structure.roles import find_roles


def tiny_base(seed: int = 0) -> torch.fx.GraphModule:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=16,
    )  # fmt: skip
    ids = torch.randint(1, 40, (2, 6))
    return passes.trace(BertModel(config, add_pooling_layer=False).eval(), {"input_ids": ids})


TINY = PublishedModel(1, "none", "hybrid", ((0, 3), (1,)), (5, 7), 1.5)


def test_published_shapes_are_those_of_bert_base() -> None:
    models = published_models()
    assert len(models) >= 20
    for model in models.values():
        assert len(model.pruned_heads) == len(model.ffn_dims) == 12
        assert all(0 <= head < 12 for heads in model.pruned_heads for head in heads)
        assert all(0 < dims <= 3072 for dims in model.ffn_dims)
    headline = published_model(19)
    assert (headline.heads_left, sum(headline.ffn_dims)) == (64, 6293)
    with pytest.raises(ValueError, match="no published model 999"):
        published_model(999)


def test_masks_leave_the_published_shapes() -> None:
    graph = tiny_base()
    masks = structure_masks(find_roles(graph), TINY.pruned_heads, TINY.ffn_dims)
    small = passes.shrink(graph, masks).graph_module
    sizes = {n: tuple(p.shape) for n, p in small.named_parameters()}
    for layer, (heads, dims) in enumerate(((2, 5), (3, 7))):
        prefix = f"encoder.layer.{layer}"
        assert sizes[f"{prefix}.attention.self.value.weight"] == (8 * heads, 32)
        assert sizes[f"{prefix}.attention.output.dense.weight"] == (32, 8 * heads)
        assert sizes[f"{prefix}.intermediate.dense.weight"] == (dims, 32)
    with pytest.raises(ValueError, match="2 attentions and 2 FFNs"):
        structure_masks(find_roles(graph), [[0]], [3])


def written(file: Path) -> dict[str, dict[str, Any]]:
    """{name of the small side: what was measured}."""
    return {row["small"]["name"]: row for row in read_result(file).details["comparisons"]}


def test_published_command_times_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpc.bench.published.bert_base", tiny_base)
    monkeypatch.setattr("bpc.bench.published.published_model", lambda number: TINY)
    arguments = ["--id", "1", "--shape", "2x5", "--threads", "1", "--clock", "cpu", "--repeats", "7"]
    files = ["--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(
        commands.app, ["published", *arguments, "--dtype", "int8", "--plain", "--multiple", "8", *files]
    )
    assert result.exit_code == 0, result.output
    rows = written(tmp_path / "r.json")
    assert list(rows) == ["dense, plain", "1, int8", "1, plain", "1, multiple of 8"]
    assert rows["1, int8"]["dtype"] == "float32 → int8"
    assert rows["dense, plain"]["arithmetic_ratio"] == 1.0
    assert rows["1, plain"]["arithmetic_ratio"] > 1.5
    drawn = CliRunner().invoke(commands.app, ["figure", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png")])
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_is_drawn_of_published_models_alone(tmp_path: Path) -> None:
    Result(command="bench", figures=[], details={"comparisons": []}).write(tmp_path / "none.json")
    Result(command="prune", figures=[]).write(tmp_path / "other.json")
    for name, said in (("none", "has no published model in it"), ("other", "a result of bpc prune has no timings")):
        arguments = ["figure", str(tmp_path / f"{name}.json"), "--plot", str(tmp_path / "r.png")]
        done = CliRunner().invoke(commands.app, arguments)
        assert (done.exit_code, said in " ".join(done.output.split())) == (1, True), done.output
        assert not (tmp_path / "r.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "8"], "write batch x length, e.g. 8x128"),
        (["--plain", "--runtime", "eager"], "--plain adds the files torch.onnx.export writes"),
        (["--device", "tpu"], "--device tpu: choose cpu, cuda"),
        (["--runtime", "cudagraphs"], "--runtime cudagraphs on cpu: choose onnx, eager, compiled"),
        (["--dtype", "float16"], "--dtype float16: onnx on cpu have float32, int8"),
    ],
)
def test_published_command_says_what_is_wrong(options: list[str], message: str) -> None:
    result = CliRunner().invoke(commands.app, ["published", *options])
    assert (result.exit_code, message in result.output) == (1, True)


def test_published_command_under_torch_with_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpc.bench.published.bert_base", tiny_base)
    monkeypatch.setattr("bpc.bench.published.published_model", lambda number: TINY)
    monkeypatch.setattr("bpc.bench.peers.PEERS", {"shallow": lambda model: tiny_base(1)})
    arguments = ["published", "--shape", "2x5", "--threads", "1", "--repeats", "7", "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(commands.app, [*arguments, "--runtime", "eager", "--peer", "shallow"])
    assert result.exit_code == 0, result.output
    rows = written(tmp_path / "r.json")
    assert list(rows) == ["1", "shallow"]
    assert rows["1"]["arithmetic_ratio"] > rows["shallow"]["arithmetic_ratio"] == 1.0
    unknown = CliRunner().invoke(commands.app, [*arguments, "--peer", "gzip"])
    assert unknown.exit_code == 1
    assert "choose shallow" in unknown.output


def test_arithmetic_of_published_points_is_that_of_the_rebuilt_model() -> None:
    ratio, speedup = published_points(length=128)["19"]
    assert speedup == pytest.approx(2.44, abs=0.01)
    assert ratio == pytest.approx(3.75, abs=0.01)  # the FLOP counter's figure for the rebuilt graph at this length


def test_baseline_command_times_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpc.bench.published.bert_base", tiny_base)
    arguments = ["--shape", "2x5", "--threads", "1", "--repeats", "7", "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(commands.app, ["baseline", *arguments])
    assert result.exit_code == 0, result.output
    rows = written(tmp_path / "r.json")
    assert list(rows) == ["plain export", "plain, no SkipLayerNorm", "transformers' fusions"]
    assert all(row["arithmetic_ratio"] == 1.0 for row in rows.values())
