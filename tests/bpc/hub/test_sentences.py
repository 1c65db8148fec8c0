"""Small models inside sentence-transformers: pruned in place, saved by it, loaded in a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel

import bpc
from tests import snippets

TEXTS = ["so far so good", "all is well so far", "never again, thanks", "I will not fly with them again, never", "rain"]
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture
def encoder(tmp_path: Path) -> SentenceTransformer:
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "bert")
    snippets.tokenizer().save_pretrained(tmp_path / "bert")
    return of_modules(tmp_path / "bert")


def of_modules(directory: Path) -> SentenceTransformer:
    words = Transformer(str(directory))
    return SentenceTransformer(modules=[words, Pooling(SIZES["hidden_size"])], device="cpu")


def in_a_new_process(directory: Path) -> np.ndarray:
    code = (
        "import bpc, json, sys; from sentence_transformers import SentenceTransformer as S; "
        f"print(json.dumps(S({str(directory)!r}, device='cpu').encode({TEXTS!r}).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]), dtype=np.float32)


def test_the_transformer_inside_is_pruned_and_the_whole_is_saved(encoder: Any, tmp_path: Path) -> None:
    before = encoder.encode(TEXTS)
    program = bpc.compile(encoder[0].model, "struct")
    with torch.no_grad():
        for scores in program.score_parameters():
            scores[:8] = -10.0
    dense = program.shrink()
    encoder[0].model = program.masked_model().eval()
    masked = encoder.encode(TEXTS)
    assert np.abs(masked - before).max() > 1e-2
    encoder[0].model = dense.module
    small = encoder.encode(TEXTS)
    np.testing.assert_allclose(small, masked, atol=1e-5)
    encoder.save(str(tmp_path / "encoder"))
    assert np.array_equal(in_a_new_process(tmp_path / "encoder"), small)
    dense.save_pretrained(tmp_path / "small")
    snippets.tokenizer().save_pretrained(tmp_path / "small")
    assert np.array_equal(of_modules(tmp_path / "small").encode(TEXTS), small)


def test_pruned_without_training_similarities_keep_their_order(encoder: Any) -> None:
    def similarities() -> np.ndarray:
        vectors = encoder.encode(TEXTS, normalize_embeddings=True)
        return (vectors @ vectors.T)[np.triu_indices(len(TEXTS), 1)]

    before = similarities()
    whole = sum(p.numel() for p in encoder.parameters())
    target = bpc.Target(density=0.8)
    dense = bpc.prune_once(encoder[0].model, TEXTS * 8, target, tokenizer=encoder.tokenizer, progress=False)
    encoder[0].model = dense.module
    assert sum(p.numel() for p in encoder.parameters()) < whole
    ranks = [value.argsort().argsort() for value in (before, similarities())]
    assert np.corrcoef(*ranks)[0, 1] > 0.9
