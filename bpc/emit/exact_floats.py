"""Floats that are integers, or made of them: positions before their cosine, counts before they are indices again.

Half precision skips integers beyond 2048 (float16) or 256 (bfloat16), and an angle of a thousand loses its decimals.
So these stay float32: every value that is computed from integers and constants alone, and leads to a Cos, a Sin or a
cast to integers.
"""

from __future__ import annotations

import onnx_ir as ir

FLOAT = ir.DataType.FLOAT
_ANGLES = ("Cos", "Sin")
_MOVES = frozenset(("Constant", "Identity", "Cast", "Reshape", "Expand", "Unsqueeze", "Squeeze", "Transpose"))


def exact_nodes(graph: ir.Graph) -> frozenset[ir.Node]:
    """The nodes that have to read and yield float32."""
    for node in graph:
        if node.op_type in _ANGLES and node.outputs[0].dtype is None and _floats(node):
            node.outputs[0].dtype = FLOAT  # torch.onnx's fusion of rotary embeddings leaves it out
    numbers, integers = _origins(graph)
    found: set[ir.Node] = set()
    waiting = [node for node in graph if _is_end(node) and all(v in integers for v in _floats(node))]
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found.add(node)
        made = [value.producer() for value in _floats(node) if value in integers or value in numbers]
        waiting += [maker for maker in made if maker is not None]
    return frozenset(found)


def _floats(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and value.dtype == FLOAT]


def _is_end(node: ir.Node) -> bool:
    if node.op_type == "Cast":
        return bool(_floats(node)) and node.outputs[0].dtype is not None and node.outputs[0].dtype.is_integer()
    return node.op_type in _ANGLES and bool(_floats(node))


def _origins(graph: ir.Graph) -> tuple[set[ir.Value], set[ir.Value]]:
    """Floats that are constants or move some; floats computed from integers, and constants."""
    numbers, integers = set(graph.initializers.values()), set()
    for node in graph:
        floats = _floats(node)
        from_integers = any(value in integers for value in floats) or _widens(node)
        outputs = [value for value in node.outputs if value.dtype == FLOAT]
        if from_integers and all(value in integers or value in numbers for value in floats):
            integers.update(outputs)
        elif node.op_type in _MOVES and all(value in numbers for value in floats):
            numbers.update(outputs)
    return numbers, integers


def _widens(node: ir.Node) -> bool:
    """A cast of integers to floats."""
    source = node.inputs[0] if node.op_type == "Cast" else None
    return source is not None and source.dtype is not None and source.dtype.is_integer()
