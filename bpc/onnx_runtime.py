"""ONNX Runtime, whose build the user chooses: for the CPU or with CUDA. Both are the one module `onnxruntime`.

Pruning, compiling and loading do without it. Writing a file checks it, so that it has to be there.
"""

from __future__ import annotations

from types import ModuleType

from bpc.errors import MendableError

_CHOOSE = (
    'pip install "block-pruning-compiler[cpu]", or "block-pruning-compiler[gpu]" on a machine with an NVIDIA GPU. '
    "One of the two: both write to the same folder"
)


class RuntimeMissing(MendableError):
    """ONNX Runtime is not installed, or what is left of it does not run."""


def onnxruntime() -> ModuleType:
    """The module ``onnxruntime``. Raises `RuntimeMissing`, which says what to install."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise RuntimeMissing(f"ONNX Runtime is not installed: {_CHOOSE}") from None
    if not hasattr(onnxruntime, "InferenceSession"):  # a folder without its __init__.py imports, too
        raise RuntimeMissing(
            "what is left of ONNX Runtime does not run; where both builds were installed, removing one takes files of "
            f"the other along. pip uninstall onnxruntime onnxruntime-gpu, then {_CHOOSE}"
        )
    return onnxruntime
