"""`bpc prune` on two ranks, as torchrun starts them: what it leaves is what one process leaves."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bpc import ranks
from tests.bpc.cli.commands import prune
from tests.bpc.cli.conftest import model_directory, texts  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_alone_there_is_nobody_to_wait_for() -> None:
    assert (ranks.rank(), ranks.count(), ranks.is_first()) == (0, 1, True)
    assert ranks.from_first("a") == "a"
    with pytest.raises(ValueError, match="mine"), ranks.ahead():
        raise ValueError("mine")


@pytest.fixture(scope="module")
def still(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The model without dropout, whose random numbers differ from rank to rank."""
    directory = tmp_path_factory.mktemp("still") / "model"
    model = AutoModelForSequenceClassification.from_pretrained(
        model_directory, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(model_directory).save_pretrained(directory)
    return directory


def on_two_ranks(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "bpc"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [*command, *(str(word) for word in words)], env=env, capture_output=True, text=True, timeout=300, check=False
    )


def test_two_ranks_prune_as_one_process_does(still: Path, texts: Path, tmp_path: Path) -> None:  # noqa: F811
    """Asked teacher, pruning, filling, measuring; said once, written once."""
    spec = tmp_path / "spec.json"
    rules = [{"roles": "attention.*", "block": [4, 4]}, {"roles": "ffn.*", "block": [1, "in_features"], "paired": True}]
    spec.write_text(json.dumps({"rules": rules, "fill": True, "scores": {"learning_rate": 0.5}}))
    more = ["--eval", texts, "--teacher", still, "--fill-epochs", 0.5, "--no-bf16"]
    alone = prune(still, texts, tmp_path / "alone", spec, *more)
    assert alone.exit_code == 0, alone.output
    options = ["--model", still, "--data", texts, "--out", tmp_path / "both", "--spec", spec, "--epochs", 2]
    both = on_two_ranks("prune", *options, "--batch-size", 8, "--no-time", *more)
    assert both.returncode == 0, both.stdout + both.stderr
    assert both.stdout.count("small model: ") == both.stdout.count("examples, 64 held out") == 1

    masks, expected = (load_file(tmp_path / name / "masks.safetensors") for name in ("both", "alone"))
    assert masks.keys() == expected.keys()
    assert any(not mask.all() for mask in expected.values())
    assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())
    weights, wanted = (load_file(tmp_path / name / "small" / "model.safetensors") for name in ("both", "alone"))
    assert weights.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=1e-4, msg=name)
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("both", "alone")]
    first, second = ({f["name"]: f["small"]["value"] for f in r["figures"]} for r in results)
    assert first == pytest.approx(second, abs=1e-3)
    assert not list((tmp_path / "both").glob("checkpoints*"))


def test_a_step_that_ranks_cannot_share_is_refused(
    still: Path,
    texts: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 3)
    monkeypatch.setattr(ranks, "joined", contextlib.nullcontext)
    monkeypatch.setattr(ranks, "from_first", lambda value: value)
    found = prune(still, texts, tmp_path / "out", tmp_path / "none.json", "--spec", "struct")
    assert found.exit_code == 1
    assert "--batch-size 8 is that of a step on all ranks together" in found.output
    assert "give a multiple of 3" in found.output
