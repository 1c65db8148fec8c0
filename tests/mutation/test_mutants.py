"""The mutator itself, and that every argued mutant still exists."""

from __future__ import annotations

import ast

from tests.mutation.__main__ import FOLDERS, all_mutants, argued
from tests.mutation.mutants import mutants

SOURCE = '''
"""Documentation == not mutated."""
LIMIT = 3 + 4


def f(a, b: int = 2):
    """a == b"""
    ties.pin(a, 0)
    return (a == b) and not b.any()
'''


def test_each_kind_of_change_is_made_once_and_parses() -> None:
    found = mutants("f.py", SOURCE)
    changes = {(m.old, m.new) for m in found}
    assert changes == {
        ("ties.pin(a, 0)", "pass"),
        ("0", "1"),
        ("a == b and (not b.any())", "a == b or not b.any()"),
        ("a == b", "a != b"),
        ("not b.any()", "b.any()"),
        ("b.any", "b.all"),
    }
    assert all(ast.dump(ast.parse(m.text)) != ast.dump(ast.parse(SOURCE)) for m in found)
    assert len({m.name for m in found}) == len(found)


def test_arguments_are_about_mutants_that_exist() -> None:
    names = {m.name for m in all_mutants(list(FOLDERS))}
    assert not [name for name in argued() if name not in names]
