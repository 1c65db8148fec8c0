"""Distillation in a transformers.Trainer, and losses that keep their proportion however a step is cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bpc.train.distill import divergence, logits_of
from bpc.train.hidden import REQUEST, check_gives_hidden_states, hidden_error, hidden_states_of
from bpc.train.sharded import ShardedTrainer
from bpc.train.share import ignores_first_label, items_in, rows_in, weigh
from bpc.train.taught import PREFIX, Taught
from bpc.train.teacher import check_teacher, teacher_inputs


class DistillingTrainer(ShardedTrainer):
    """A `transformers.Trainer` with a teacher; `bpc.Trainer` documents what it does with losses.

    Args:
        teacher: a model with the same outputs, or None. Raises TypeError for what is no module and ValueError for a
            model with other outputs.
        distillation_weight, temperature: w and T of `bpc.train.distill`. With weight 1 a model need not have a loss.
        hidden_weight: of `bpc.train.hidden`'s distance, which is added to the loss. Above 0 the teacher runs in every
            step; raises ValueError for models that give no hidden states, and for data with a teacher's answers only.
    """

    def __init__(
        self,
        *,
        teacher: nn.Module | None,
        distillation_weight: float,
        temperature: float,
        hidden_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if teacher is not None and not isinstance(teacher, nn.Module):
            raise TypeError(
                f"teacher= takes a loaded model (an nn.Module), not a {type(teacher).__name__}: {teacher!r}"
            )
        self.teacher = teacher
        self.distillation_weight = distillation_weight
        self.temperature = temperature
        self.hidden_weight = hidden_weight
        self._step_items: Tensor | None = None  # of all micro-batches and ranks
        self._step_rows: Tensor | None = None
        self._shift_is_unknown = True
        super().__init__(**kwargs)
        if isinstance(self.train_dataset, Taught):
            collator: Any = self.train_dataset.collator(self.data_collator)
            self.data_collator = collator
        if teacher is not None:
            assert self.model is not None
            check_teacher(teacher, self.model)
            if hidden_weight > 0:
                check_gives_hidden_states(self.model, "model")
                check_gives_hidden_states(teacher, "teacher")
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
        counts = torch.zeros(2, device=device)
        for batch in batches:
            counts += torch.stack([torch.as_tensor(n, device=device) for n in (self._items_in(batch), rows_in(batch))])
        if self.args.average_tokens_across_devices:
            counts = self.accelerator.gather(counts).view(-1, 2).sum(0)
        self._step_items, self._step_rows = counts
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

    def _share(self, count: float | Tensor, of: Tensor | None) -> float | Tensor:
        """A micro-batch's share ``count / of`` of its step, times what gradients are divided by later: micro-batches
        and ranks."""
        if of is None:
            return 1.0  # not in a step of train()
        parts = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        if not self._normalises_itself:  # transformers divides a loss by the micro-batches
            parts *= self.current_gradient_accumulation_steps
        return count * parts / of.clamp(min=1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        known = {name.removeprefix(PREFIX): inputs.pop(name) for name in [*inputs] if name.startswith(PREFIX)}
        batch = dict(inputs)  # transformers takes the labels out where it computes the loss itself
        taught = bool(known) or self.teacher is not None
        weight = self.distillation_weight if taught else 0.0
        hidden = self.hidden_weight if taught and model.training else 0.0
        if hidden > 0:
            inputs = {**inputs, REQUEST: True}
        if not model.training or weight < 1.0:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        else:
            loss, outputs = None, model(**inputs)
        if model.training:
            share = self._share(self._items_in(batch), self._step_items)
            if loss is not None and not self._normalises_itself:
                loss = weigh(loss, share)
            terms = [] if loss is None else [(1.0 - weight) * loss]
            said = self._ask(batch, hidden > 0) if hidden > 0 or (weight > 0 and not known) else None
            if weight > 0:
                terms.append(weight * weigh(self._divergence(batch, outputs, known or logits_of(said)), share))
            if hidden > 0:
                error = hidden_error(hidden_states_of(outputs, "model"), hidden_states_of(said, "teacher"), batch)
                terms.append(hidden * weigh(error, self._share(rows_in(batch), self._step_rows)))
            loss = torch.stack(terms).sum()
        assert loss is not None
        return (loss, outputs) if return_outputs else loss

    def _ask(self, inputs: Mapping[str, Any], hidden: bool) -> Any:
        """What the teacher says of the batch."""
        if self.teacher is None:
            raise ValueError(
                "distillation.hidden compares hidden states, of which the data hold none: give teacher=, which is then "
                "asked in every step, or set it to 0"
            )
        with torch.no_grad():
            return self.teacher(**teacher_inputs(inputs, self.model), **({REQUEST: True} if hidden else {}))

    def _divergence(self, inputs: Mapping[str, Any], outputs: Any, teacher: Mapping[str, Tensor]) -> Tensor:
        """How far ``outputs`` are from the teacher's on the same batch: a mean over its rows or labelled tokens."""
        return divergence(
            logits_of(outputs),
            teacher,
            inputs,
            temperature=self.temperature,
            problem_type=getattr(getattr(self.model, "config", None), "problem_type", None),
            shifted=self._loss_shifts_labels,
        )
