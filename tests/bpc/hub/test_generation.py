"""Small models, saved and loaded in a fresh process, generate what the masked models do, however they generate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.bpc import generators

DOORS = dict.fromkeys(generators.DECODERS, "AutoModelForCausalLM") | {
    "t5": "AutoModelForSeq2SeqLM", "bart": "AutoModelForSeq2SeqLM", "whisper": "AutoModelForSpeechSeq2Seq",
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampled": {"do_sample": True, "top_k": 0},
    "greedy, static": {"cache_implementation": "static"},
    "beams, static": {"num_beams": 3, "cache_implementation": "static"},
    "sampled, no cache": {"do_sample": True, "top_k": 0, "use_cache": False},
}
FRESH = """
    import json, sys, torch, transformers, bpc
    from safetensors.torch import load_file
    from tests.bpc.hub.test_generation import generated
    transformers.logging.set_verbosity_error()
    doors, ways = map(json.loads, sys.argv[1:])
    out = {}
    for family, door in doors.items():
        model = getattr(transformers, door).from_pretrained(family)
        out[family] = {way: generated(model, load_file(f"{family}.safetensors"), ways[way]) for way in ways}
    print(json.dumps(out))
"""


def generated(model: Any, inputs: dict[str, torch.Tensor], how: dict[str, Any]) -> list[list[int]]:
    """Six tokens for each row, after the prompt where it comes back too."""
    torch.manual_seed(0)
    found: list[list[int]] = model.generate(**inputs, max_new_tokens=6, **{"do_sample": False, **how}).tolist()
    return found


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[list[int]]]]:
    """{family: {way: tokens}}, of one other process for all of them."""
    root = tmp_path_factory.mktemp("generators")
    for family in DOORS:
        model, dense = generators.small(family)
        dense.save_pretrained(root / family)
        save_file(generators.prompt(model), root / f"{family}.safetensors")
    command = [sys.executable, "-c", textwrap.dedent(FRESH), json.dumps(DOORS), json.dumps(WAYS)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[list[int]]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("family", DOORS)
def test_a_fresh_process_generates_the_masked_models_tokens(fresh: dict[str, Any], family: str) -> None:
    model, dense = generators.small(family)
    assert sum(p.numel() for p in dense.module.parameters()) < sum(p.numel() for p in model.parameters())
    for way, how in WAYS.items():
        assert fresh[family][way] == generated(model, generators.prompt(model), how), way
    assert len({str(fresh[family][way]) for way in WAYS}) > 1  # ways that differ
