"""What the pages of docs/ say is so: their Python runs, their messages are ours, their lists are complete."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
import torch
import typer
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

import bpc
import passes
from bpc.cli import app
from tests import snippets
from tests.passes.families import FAMILIES
from tests.snippets import ROOT


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    tokenizer = snippets.tokenizer()
    inputs = snippets.batch(tokenizer)
    model = snippets.noisy_bert(layers=1)
    return {"model": model, "tokenizer": tokenizer, "ids": inputs["input_ids"], "mask": inputs["attention_mask"]}


def test_masks_from_anywhere(names: dict[str, Any]) -> None:
    own, pruned, narrowed = snippets.snippets("docs/masks.md")
    snippets.run(own, "docs/masks.md", names)
    up = names["result"].graph_module.get_parameter(names["name"])
    assert up.shape == (64 - 30, 96)
    snippets.run(pruned, "docs/masks.md", names)
    inputs = {"input_ids": names["ids"], "attention_mask": names["mask"]}
    with torch.no_grad():
        torch.testing.assert_close(names["small"](**inputs).logits, names["model"](**inputs).logits, atol=1e-5, rtol=0)
    assert names["small"].bert.encoder.layer[0].output.dense.weight.shape == (96, 32)
    snippets.run(narrowed, "docs/masks.md", names)
    assert names["module"].bert.embeddings.word_embeddings.weight.shape[1] == int(names["width"].sum())


def test_exactness_without_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    config = LlamaConfig(vocab_size=50, **sizes)
    LlamaForCausalLM(config).save_pretrained("model-dir")
    keep = torch.ones(48, 32, dtype=torch.bool)
    keep[:8] = False
    names: dict[str, Any] = {"torch": torch, "passes": passes, "AutoModelForCausalLM": AutoModelForCausalLM}
    names |= {"config": config, "masks": {"model.layers.0.mlp.up_proj.weight": keep}}
    (snippet,) = snippets.snippets("docs/exactness.md")
    snippets.run(snippet, "docs/exactness.md", names)
    assert all(parameter.is_meta for parameter in names["model"].parameters())
    kept = {cut.parameter: {dim: len(indices) for dim, indices in cut.keep.items()} for cut in names["plan"].cuts}
    assert kept["model.layers.0.mlp.up_proj.weight"] == {0: 40}
    assert kept["model.layers.0.mlp.down_proj.weight"] == {1: 40}


def test_choosing_a_target(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = snippets.snippets("docs/choosing-a-target.md")
    snippets.run(snippet, "docs/choosing-a-target.md", names)
    assert re.search(r"of the parameters, of \d+\.\d% asked", capsys.readouterr().out)
    text = (ROOT / "docs" / "choosing-a-target.md").read_text()
    for call in re.findall(r"Target\([a-z_]+=[\d._]+\)", text):
        assert eval(call, {"Target": bpc.Target})


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The notebook's cells, as they are: where they ran, the names they left, what they printed."""
    place, shown, names = tmp_path_factory.mktemp("tutorial"), io.StringIO(), dict[str, Any]()
    with contextlib.chdir(place), contextlib.redirect_stdout(shown):
        for cell in nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                snippets.run(cell.source, "docs/tutorial.ipynb", names)
    return place, names, shown.getvalue()


def test_the_tutorial_prunes_exports_and_serves(tutorial: tuple[Path, dict[str, Any], str]) -> None:
    shown = tutorial[2]
    accuracies = re.search(r"small: ([\d.]+)\nloaded: ([\d.]+)\n", shown)
    assert accuracies, shown
    assert accuracies[1] == accuracies[2]
    assert float(accuracies[1]) > 0.75
    assert shown.endswith("[1 0]\n")


def test_deployment(tutorial: tuple[Path, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tutorial's model, which it saves and exports in the same words."""
    save, *rest = snippets.snippets("docs/deployment.md")
    assert save in snippets.snippets("docs/tutorial.md")[-2]
    place, made, _ = tutorial
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    for snippet in rest:
        snippets.run(snippet, "docs/deployment.md", names)
    for texts in (["thanks the crew was great", "bag lost"], ["the flight was late again never"]):
        inputs = made["tokenizer"](texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = names["small"].eval()(**inputs).logits
        torch.testing.assert_close(torch.from_numpy(names["logits"](texts)), expected, atol=1e-4, rtol=1e-4)


def test_sentence_transformers(names: dict[str, Any]) -> None:
    names["model"].bert.save_pretrained("bert")
    names["tokenizer"].save_pretrained("bert")
    SentenceTransformer("bert", device="cpu").save("encoder")
    names["texts"] = ["so far so good", "never again, thanks"] * 16
    snippets.run(snippets.snippets("docs/other-libraries.md")[0], "docs/other-libraries.md", names)
    assert (names["small"].encode(names["texts"]) == names["encoder"].encode(names["texts"])).all()


def test_adapters(names: dict[str, Any]) -> None:
    inputs = {"input_ids": names["ids"], "attention_mask": names["mask"]}
    program = bpc.compile(names["model"], "struct")
    program.shrink().save_pretrained("small")
    names["train"] = lambda model: model(**inputs, labels=torch.tensor([0, 1])).loss.backward()
    snippets.run(snippets.snippets("docs/other-libraries.md")[1], "docs/other-libraries.md", names)
    tuned = AutoModelForSequenceClassification.from_pretrained("small-and-tuned")
    with torch.no_grad():
        torch.testing.assert_close(tuned(**inputs).logits, names["merged"].eval()(**inputs).logits)


def test_openvino(names: dict[str, Any]) -> None:
    pytest.importorskip("openvino", reason="60 MB, in the extra openvino, which the suite does without")
    names["batch"] = {"input_ids": names["ids"], "attention_mask": names["mask"]}
    bpc.export_onnx(passes.trace(names["model"], names["batch"]), "small.onnx")
    snippets.run(snippets.snippets("docs/other-libraries.md")[2], "docs/other-libraries.md", names)
    with torch.no_grad():
        expected = names["model"](**names["batch"]).logits
    torch.testing.assert_close(torch.from_numpy(names["logits"]), expected, atol=1e-3, rtol=1e-4)


def test_the_notebook_is_the_tutorial() -> None:
    """``make notebook`` writes it."""
    page = jupytext.read(ROOT / "docs" / "tutorial.md")
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in page.cells]
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_every_message_of_the_questions_is_ours() -> None:
    page = (ROOT / "docs" / "faq.md").read_text()
    messages = re.findall(r"^- `(.+)`\n\n    ", page, flags=re.MULTILINE)
    assert len(messages) > 15
    said = "\n".join(text for package in ("bpc", "passes") for text in _strings(ROOT / package))
    for message in messages:
        if message.startswith("No module named"):  # Python's own
            continue
        parts = [re.escape(part) for part in message.split("…")]
        assert re.search("[^\n]*".join(parts), said), message


def _strings(package: Path) -> list[str]:
    """The texts in the code of a package, one a line, with … where values go."""
    found = []
    for file in package.rglob("*.py"):
        if "raise " not in (text := file.read_text()):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value]
            else:
                continue
            found.append("".join(parts).replace("\n", " ").replace("`", ""))
    return found


def test_every_option_of_a_command_exists() -> None:
    """Of each line of README and docs/ that calls bpc."""
    commands: Any = typer.main.get_command(app)
    shell = re.compile(r"^```(?:bash|text|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
    called = 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for block in shell.findall(page.read_text()):
            for name, rest in re.findall(r"^bpc +([a-z][a-z-]+)(.*)$", block, flags=re.MULTILINE):
                options = {"--help"} | {o for parameter in commands.commands[name].params for o in parameter.opts}
                assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", rest.partition("#")[0])) <= options, (page, name)
                called += 1
    assert called > 15


def test_every_family_of_the_tests_is_listed() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    table = page[page.index("## Shrunk exactly") : page.index("## What can be done")].lower()
    words = set(re.findall(r"[a-z0-9]+", re.sub(r"[-.]", "", table)))
    named = {re.sub(r"[-.]", "", name) for name in FAMILIES}
    assert named - words == set()
    assert f"{len(FAMILIES)} families" in (ROOT / "README.md").read_text()


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    listed = set(re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE))
    public = {f"{package.__name__}.{name}" for package in (bpc, passes) for name in package.__all__}
    assert public <= listed


def test_pages_read_alike_on_the_site_and_in_a_repository() -> None:
    """Python-Markdown wants an empty line above a list, and four spaces before what is inside one."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert not re.search(r"^(?!- |\d+\. |\s).+\n- ", text, flags=re.MULTILINE), page
        assert not re.search(r"^ {1,3}(?:- |\|)", text, flags=re.MULTILINE), page
