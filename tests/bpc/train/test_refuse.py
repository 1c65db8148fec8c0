"""Masked models that nobody prunes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from bpc.train import Trainer
from bpc.train.refuse import refuse_wrappers

Make = Callable[..., Any]
Rows = list[dict[str, Any]]


def test_a_masked_model_without_its_program_is_refused(make_program: Make, arguments: Make) -> None:
    program = make_program()
    with pytest.raises(ValueError, match=r"BertForSequenceClassification has block masks.*give the Trainer program="):
        Trainer(model=program.module, args=arguments())
    Trainer(model=program.detach(), args=arguments())


def test_a_plain_trainer_is_told_once_that_nothing_moves(make_program: Make, arguments: Make, dataset: Rows) -> None:
    program = make_program()
    with pytest.warns(UserWarning, match="nothing moves their threshold") as said:
        transformers.Trainer(model=program.module, args=arguments(max_steps=3), train_dataset=dataset).train()
    assert len({str(warning.message) for warning in said if "threshold" in str(warning.message)}) == 1


def test_who_moves_the_threshold_is_told_nothing(make_program: Make, arguments: Make, dataset: Rows) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        Trainer(program=make_program(), args=arguments(max_steps=1, dataloader_pin_memory=False), train_dataset=dataset)
        program = make_program()
        program.set_progress(0.0)
        program.module.train()(input_ids=torch.ones(2, 4, dtype=torch.long))
        make_program().module.eval()(input_ids=torch.ones(2, 4, dtype=torch.long))


def test_ways_to_train_that_masks_do_not_survive(make_program: Make, arguments: Make) -> None:
    """Several GPUs in one process; pieces: test_sharded."""
    several = arguments()
    several._n_gpu = 2
    program = make_program()
    with pytest.raises(ValueError, match=r"DataParallel copies modules.*torchrun"):
        Trainer(program=program, args=several)
    linear: Any = program.module.bert.encoder.layer[0].intermediate.dense
    replica: nn.Module = linear._replicate_for_data_parallel()
    with pytest.raises(AttributeError, match="no setter"):  # the reason
        replica.weight = torch.ones(48, 32)


def test_one_flat_tensor_of_parameters_is_refused() -> None:
    plugin = SimpleNamespace(fsdp_version=1, cpu_ram_efficient_loading=False)
    state = SimpleNamespace(fsdp_plugin=plugin)
    trainer = SimpleNamespace(is_fsdp_enabled=True, accelerator=SimpleNamespace(state=state))
    with pytest.raises(ValueError, match=r"FSDP 1 makes one flat tensor.*FSDP2"):
        refuse_wrappers(trainer)
