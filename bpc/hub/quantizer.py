"""What transformers calls to load a small model: its config's note read, layers resized before weights come in.

transformers has one door for models whose layers are not what their config makes: quantization. Nothing is quantized.
This text also goes into the file that a self-contained directory brings along (`bpc.hub.standalone`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from safetensors import safe_open
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from bpc.hub.auto_map import point_to_file
from bpc.hub.note import METHOD, Note, NoteError
from bpc.hub.resize import cut_buffers, resize, unfit

_OWN = ("hf_quantizer", "quantization_method", "is_quantized")  # what transformers sets on a quantized model


class SmallModelConfig(QuantizationConfigMixin):
    """A note, as transformers holds it while it loads."""

    def __init__(self, **content: Any) -> None:
        self.quant_method: Any = METHOD
        self.note = Note.read(content)

    def to_dict(self) -> dict[str, Any]:
        return self.note.plain()


class SmallModelLoader(HfQuantizer):
    """Resizes a model before its weights are read, and leaves a plain model behind."""

    quantization_config: SmallModelConfig

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        if self.quantization_config.note.masked:
            raise NoteError(
                "this is a checkpoint of a training with block masks, and its weights are unmasked: as they are, they "
                "would compute another model. bpc.compile the model it began with by the same spec; then "
                "Trainer.train(resume_from_checkpoint=DIR) goes on training, and after "
                "safetensors.torch.load_model(program.module, DIR/model.safetensors) program.shrink() and "
                "program.masked_model() give the small and the masked model. Masks in a file: bpc shrink --masks FILE"
            )

    def _process_model_before_weight_loading(self, model: Any, checkpoint_files: Any = None, **kwargs: Any) -> Any:
        note = self.quantization_config.note
        resize(model, note)
        # ignore_mismatched_sizes=True would make these weights random.
        if problem := unfit(model, note, dict(_stored_shapes(checkpoint_files or ()))):
            raise NoteError(
                f"the checkpoint does not belong to its config.json, which tells of a small model: {problem}"
            )
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        cut_buffers(model, self.quantization_config.note)
        model.config.quantization_config = self.quantization_config.to_dict()
        for name in _OWN:
            model.__dict__.pop(name, None)
        if type(model)._auto_class is None:  # not of the file that the directory brings along: saving will not copy it
            point_to_file(vars(model.config), {})
        for module in model.modules():
            if (config := getattr(module, "config", None)) is not None:
                vars(config).pop("_is_quantized", None)
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


def _stored_shapes(files: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in checkpoint files; no weight is read."""
    for file in map(str, files):
        if file.endswith(".safetensors"):
            with safe_open(file, framework="pt") as content:
                yield from ((name, tuple(content.get_slice(name).get_shape())) for name in content.keys())  # noqa: SIM118
        else:
            state = torch.load(file, map_location="meta", weights_only=True)
            yield from ((name, tuple(value.shape)) for name, value in state.items())


def register() -> None:
    """Make transformers' `from_pretrained` know small models. Doing it twice is doing it once."""
    AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = SmallModelConfig
    AUTO_QUANTIZER_MAPPING[METHOD] = SmallModelLoader
