"""Distillation in a transformers.Trainer, and losses that keep their proportion however a step is cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bpc.train.distill import divergence, logits_of
from bpc.train.sharded import ShardedTrainer
from bpc.train.share import ignores_first_label, items_in, weigh
from bpc.train.taught import PREFIX, Taught
from bpc.train.teacher import check_teacher, teacher_inputs


class DistillingTrainer(ShardedTrainer):
    """A `transformers.Trainer` with a teacher; `bpc.Trainer` documents what it does with losses.

    Args:
        teacher: a model with the same outputs, or None. Raises TypeError for what is no module and ValueError for a
            model with other outputs.
        distillation_weight, temperature: w and T of `bpc.train.distill`. With weight 1 a model need not have a loss.
    """

    def __init__(
        self, *, teacher: nn.Module | None, distillation_weight: float, temperature: float, **kwargs: Any
    ) -> None:
        if teacher is not None and not isinstance(teacher, nn.Module):
            raise TypeError(
                f"teacher= takes a loaded model (an nn.Module), not a {type(teacher).__name__}: {teacher!r}"
            )
        self.teacher = teacher
        self.distillation_weight = distillation_weight
        self.temperature = temperature
        self._step_items: Tensor | None = None  # of all micro-batches and ranks
        self._shift_is_unknown = True
        super().__init__(**kwargs)
        if isinstance(self.train_dataset, Taught):
            collator: Any = self.train_dataset.collator(self.data_collator)
            self.data_collator = collator
        if teacher is not None:
            assert self.model is not None
            check_teacher(teacher, self.model)
            teacher.requires_grad_(False).eval()
            self._move_model_to_device(teacher, self.args.device)

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            known = getattr(self.train_dataset, "outputs", ("logits",))  # of a `Taught`, or a column made by hand
            self._signature_columns = [*(self._signature_columns or ()), *(PREFIX + name for name in known)]  # type: ignore[assignment]

    @property
    def _normalises_itself(self) -> bool:
        """The task loss comes divided by the items of the whole step, and is not divided by the micro-batches again."""
        if self.loss_is_scaled_for_ga is not None:
            return bool(self.loss_is_scaled_for_ga)
        return self.compute_loss_func is not None

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """None for a model's own loss: many take the number and do not divide by it."""
        return super()._get_num_items_in_batch(batch_samples, device) if self._normalises_itself else None

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches and self._shift_is_unknown:
            self._ask_for_shift(batches[0])
        count = torch.tensor(0.0, device=device)
        for batch in batches:
            count += self._items_in(batch)
        if self.args.average_tokens_across_devices:
            count = self.accelerator.gather(count).sum()
        self._step_items = count
        return batches, items

    def _ask_for_shift(self, batch: Any) -> None:
        """Where transformers does not know by a model's name (GPT2LMHeadModel) what its loss does with labels."""
        self._shift_is_unknown = False
        assert self.model is not None
        known = getattr(self.model, "loss_type", None) is not None or self.compute_loss_func is not None
        if not known and not self._loss_shifts_labels and isinstance(batch, Mapping):
            own = {name: value for name, value in batch.items() if not name.startswith(PREFIX)}
            with self.compute_loss_context_manager():
                self._loss_shifts_labels = ignores_first_label(self.model, self._prepare_inputs(own))

    def _items_in(self, batch: Any) -> float | Tensor:
        return items_in(batch, self._loss_shifts_labels) if isinstance(batch, Mapping) else 1.0

    def _share(self, inputs: Mapping[str, Any]) -> float | Tensor:
        """A micro-batch's share of its step, times what gradients are divided by later: micro-batches and ranks."""
        if self._step_items is None:
            return 1.0  # not in a step of train()
        parts = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        if not self._normalises_itself:  # transformers divides a loss by the micro-batches
            parts *= self.current_gradient_accumulation_steps
        return self._items_in(inputs) * parts / self._step_items.clamp(min=1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        known = {name.removeprefix(PREFIX): inputs.pop(name) for name in [*inputs] if name.startswith(PREFIX)}
        batch = dict(inputs)  # transformers takes the labels out where it computes the loss itself
        weight = self.distillation_weight if known or self.teacher is not None else 0.0
        if not model.training or weight < 1.0:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        else:
            loss, outputs = None, model(**inputs)
        if model.training:
            share = self._share(batch)
            if loss is not None and not self._normalises_itself:
                loss = weigh(loss, share)
            if weight > 0:
                distance = weigh(self._divergence(batch, outputs, known), share)
                loss = distance if loss is None else (1.0 - weight) * loss + weight * distance
        assert loss is not None
        return (loss, outputs) if return_outputs else loss

    def _divergence(self, inputs: Mapping[str, Any], outputs: Any, known: Mapping[str, Tensor]) -> Tensor:
        """How far ``outputs`` are from the teacher's on the same batch: a mean over its rows or labelled tokens.

        ``known``: the teacher's outputs, where they were computed before.
        """
        teacher = known
        if not known:
            assert self.teacher is not None
            with torch.no_grad():
                teacher = logits_of(self.teacher(**teacher_inputs(inputs, self.model)))
        return divergence(
            logits_of(outputs),
            teacher,
            inputs,
            temperature=self.temperature,
            problem_type=getattr(getattr(self.model, "config", None), "problem_type", None),
            shifted=self._loss_shifts_labels,
        )
