"""`import bpc` is quick, and whichever comes first, transformers knows small models when it loads one."""

from __future__ import annotations

import subprocess
import sys

import pytest

KNOWN = "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as M; assert 'bpc' in M"


@pytest.mark.parametrize(
    "code",
    [
        "import bpc, sys; assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)",
        f"import bpc; {KNOWN}",
        f"import transformers.quantizers.auto, bpc; {KNOWN}",
    ],
    ids=["quick", "before", "after"],
)
def test_small_models_are_known(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
