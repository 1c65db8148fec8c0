"""Mutants of a source file: one small change each, by syntax tree, as text."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}
NAMES = {"any": "all", "all": "any", "amin": "amax", "amax": "amin", "min": "max", "max": "min"}


@dataclass(frozen=True)
class Mutant:
    """``old`` at a place of a file becomes ``new``. The name stays the same while code elsewhere moves."""

    file: str
    function: str
    line: int
    last: int  # the change is on lines line … last
    old: str
    new: str
    count: int  # which of the same changes in the function
    text: str  # the whole changed file

    @property
    def name(self) -> str:
        return f"{self.file}::{self.function}::{self.old} -> {self.new}" + (f" #{self.count}" if self.count else "")


def mutants(file: str, source: str) -> list[Mutant]:
    """Every mutant of the functions of ``source``, in order."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for function, node, replacement in _changes(ast.parse(source), ()):
        old = ast.unparse(node).split("\n")[0]
        new = "pass" if isinstance(replacement, ast.Pass) else ast.unparse(replacement).split("\n")[0]
        key = (function, old, new)
        text = _replaced(source, node, replacement)
        found.append(Mutant(file, function, node.lineno, node.end_lineno, old, new, seen[key], text))  # type: ignore[attr-defined]
        seen[key] += 1
    return found


def _replaced(source: str, node: ast.AST, replacement: ast.AST) -> str:
    lines = source.encode().split(b"\n")
    first, last = node.lineno - 1, node.end_lineno - 1  # type: ignore[attr-defined]
    head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]  # type: ignore[attr-defined]
    new = ast.unparse(replacement)
    if isinstance(replacement, ast.expr):
        new = f"({new})"
    return b"\n".join([*lines[:first], head + new.encode() + tail, *lines[last + 1 :]]).decode()


def _changes(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """(function, node, what replaces it) for everything inside functions that is not documentation or a type."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            for statement in child.body:
                if not _documents(statement):
                    yield from _inside(statement, (*path, child.name), in_function=isinstance(child, ast.FunctionDef))
        elif isinstance(child, ast.Module):
            yield from _changes(child, path)


def _inside(node: ast.AST, path: tuple[str, ...], in_function: bool) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        for statement in node.body:
            if not _documents(statement):
                yield from _inside(statement, (*path, node.name), isinstance(node, ast.FunctionDef) or in_function)
        return
    if not in_function or isinstance(node, ast.Assert | ast.Raise | ast.Import | ast.ImportFrom):
        return
    function = ".".join(path)
    for replacement in _replacements(node):
        yield function, node, replacement
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "format_spec"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from _inside(child, path, in_function)


def _documents(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield ast.Attribute(node.value, NAMES[node.attr], node.ctx)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
        yield ast.Call(ast.Name(NAMES[node.func.id], ast.Load()), node.args, node.keywords)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.AugAssign):
        yield ast.Pass()
