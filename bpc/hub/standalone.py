"""A directory that loads without bpc: one Python file beside the weights, which ``trust_remote_code=True`` runs.

The file is put together from the text of bpc's own modules, so that a model is resized by one piece of code wherever
it is loaded. config.json's ``auto_map`` names the classes of the file: transformers' own ones under their own names,
in a module that teaches transformers the note of a small model's sizes when it is imported.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from bpc.hub.auto_map import FILE, point_to_file
from bpc.hub.note import NoteError
from passes.ir import compact
from passes.plan import sizes

NAME = f"{FILE}.py"
# In this order, after passes.plan.sizes and passes.ir.compact. Read, not imported: `bpc.hub.hook` imports the last.
_PARTS = ("light_note", "resize", "auto_map", "quantizer")
_OURS = ("bpc", "passes")
_HEAD = '''"""Loads a model that was made smaller by bpc, a block-pruning compiler for transformers, without bpc.

    AutoModelForX.from_pretrained(directory, trust_remote_code=True)

config.json says which layers are smaller than the config makes them ("quantization_config", though nothing is
quantized). Importing this file tells transformers how to read that, unless bpc is imported and has.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations
'''


def make_standalone(directory: Path, module: nn.Module) -> None:
    """Write the file into a saved directory of ``module``, and name its classes in config.json.

    Raises `NoteError` for a class that is not transformers' own.
    """
    kind = class_of(module)
    if getattr(transformers, kind.__name__, None) is not kind:
        raise NoteError(
            f"{kind.__name__} is no class of transformers, so that its own code would have to go along: copy it beside "
            "the weights yourself (transformers: register_for_auto_class), or save without standalone=True"
        )
    classes = auto_classes(module)
    (directory / NAME).write_text(_text(sorted(set(classes.values()))), encoding="utf-8")
    _edit(directory, classes)


def forget_standalone(directory: Path) -> None:
    """Take the file, and its classes in config.json, away again where the module was loaded from such a directory."""
    (directory / NAME).unlink(missing_ok=True)
    _edit(directory, {})


def class_of(module: nn.Module) -> type[nn.Module]:
    """A module's class; transformers' own one for a class of such a file."""
    kind = type(module)
    return kind.__bases__[0] if kind.__module__.rpartition(".")[2] == FILE else kind


def auto_classes(module: Any) -> dict[str, str]:
    """{Auto class: the class that it makes of the module's config}, the module's own class wherever it is one."""
    from transformers.models.auto import modeling_auto  # takes a second

    found: dict[str, str] = {}
    for name, auto in vars(modeling_auto).items():
        mapping = getattr(auto, "_model_mapping", None)
        if not name.startswith("AutoModel") or mapping is None or type(module.config) not in mapping:
            continue
        made = mapping[type(module.config)]
        choices = [made] if isinstance(made, type) else [kind for kind in made if kind is not None]
        own = class_of(module)
        if own in choices or len(choices) == 1:
            found[name] = own.__name__ if own in choices else choices[0].__name__
    return found


def _edit(directory: Path, classes: dict[str, str]) -> None:
    file = directory / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    before = dict(config)
    point_to_file(config, classes)
    if config != before:
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _text(classes: list[str]) -> str:
    imports: dict[str, None] = {}
    bodies = []
    sources = (Path(__file__).with_name(f"{part}.py").read_text(encoding="utf-8") for part in _PARTS)
    for source in (inspect.getsource(sizes), inspect.getsource(compact), *sources):
        found, body = _split(source)
        imports |= dict.fromkeys(found)
        bodies.append(body.strip("\n"))
    bodies.append("if METHOD not in AUTO_QUANTIZER_MAPPING:\n    register()")
    bodies += [f'class {name}(transformers.{name}):\n    """transformers\' own."""' for name in classes]
    return "\n".join([_HEAD, *sorted({*imports, "import transformers"}), "", ""]) + "\n\n\n".join(bodies) + "\n"


def _split(source: str) -> tuple[list[str], str]:
    """A module's imports, but for ours, and the rest of its text without its docstring."""
    tree, lines = ast.parse(source), source.splitlines()
    gone: set[int] = set()
    imports = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            if not any(name.partition(".")[0] in (*_OURS, "__future__") for name in _modules(node)):
                imports.append(ast.unparse(node))
        elif node is not tree.body[0]:  # the docstring
            continue
        gone.update(range(node.lineno - 1, node.end_lineno or node.lineno))
    return imports, "\n".join(line for number, line in enumerate(lines) if number not in gone)


def _modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        yield node.module or ""
    else:
        yield from (alias.name for alias in node.names)
