"""docs/doors.md of results/doors.json."""

from __future__ import annotations

from typing import Any

COLUMNS = (
    "shrink", "module", "save", "bpc.load", "from_pretrained", "standalone", "pipeline", "Trainer", "generate, greedy",
    "generate, beams", "generate, static cache", "ONNX", "ONNX int8", "ONNX with cache", "float16", "bfloat16",
    "torch.compile", "copy, pickle", "LoRA", "sentence-transformers",
)  # fmt: skip

_HEAD = """# Families and doors

Which small model can be used in which way: tiny random models, pruned, saved, and tried in fresh processes, which know
only what lies in the directory. *yes*: it computes what the masked model does (the same tokens, where it generates); –:
does not apply, or follows from a door before it that is closed. A number: the reason, below, in the words of the tool.
`python -m tests.doors` tries them and writes results/doors.json and this page."""

_DOORS = """- *shrink*: exact, as verified; *module*: the model's own class, smaller; *save*: `save_pretrained`
- *standalone*: `trust_remote_code=True` in a process without bpc; *Trainer*: `save_model`, then `from_pretrained`
- *ONNX*: files compared with the graph on ONNX Runtime, on many shapes; *with cache*: for generation, token by token
- *float16*, *bfloat16*: the module, cast; *torch.compile*: its backend aot_eager; *copy, pickle*: the `DenseModel`
- *LoRA*: peft on all linears, before and after merging"""


def page(data: dict[str, Any]) -> str:
    """The matrix, with reasons as notes."""
    families, notes = data["families"], dict[str, int]()

    def cell(found: dict[str, str], door: str) -> str:
        if door not in found:
            return "–"
        return str(notes.setdefault(found[door], len(notes) + 1)) if found[door] else "yes"

    lines = [f"| | {' | '.join(families)} |", f"|---|{'---|' * len(families)}"]
    lines += [f"| {door} | {' | '.join(cell(found, door) for found in families.values())} |" for door in COLUMNS]
    said = [f"{number}. {text.replace('<', '&lt;')}" for text, number in notes.items()]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    parts = [_HEAD, "\n".join(lines), *(["\n".join(said)] if said else []), _DOORS, f"Versions: {versions}."]
    return "\n\n".join(parts) + "\n"
