"""What runs exported files: ONNX Runtime, whose build the user chooses (both are one module), and OpenVINO.

Pruning, compiling and loading do without them. Writing a file checks it, so that ONNX Runtime has to be there.
"""

from __future__ import annotations

from types import ModuleType

from bpc.errors import MendableError

_CHOOSE = (
    'pip install "block-pruning-compiler[cpu]", or "block-pruning-compiler[gpu]" on a machine with an NVIDIA GPU. '
    "One of the two: both write to the same folder"
)


class RuntimeMissing(MendableError):
    """A runtime is not installed, or what is left of it does not run."""


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


def openvino() -> ModuleType:
    """The module ``openvino``. Raises `RuntimeMissing`, which says what to install."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise RuntimeMissing('OpenVINO is not installed: pip install "block-pruning-compiler[openvino]"') from None
    return openvino
