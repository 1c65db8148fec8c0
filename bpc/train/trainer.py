"""`bpc.Trainer`: a transformers.Trainer that prunes while it trains."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn

from bpc.scores import MaskSet
from bpc.scores.structure import live_structure
from bpc.train.distill import distillation_loss, logits_of
from bpc.train.progress import PruningProgress
from bpc.train.scores import score_learning_rate, score_parameters

if TYPE_CHECKING:
    from bpc.program import Program

logger = logging.getLogger(__name__)

TEACHER_COLUMN = "teacher_logits"

# What accelerate sets on a model it wraps in autocast. Its own unwrapping takes the forward's decorators off as well.
_WRAPPED = ("forward", "_original_forward")


class Trainer(transformers.Trainer):
    """Fine-prunes a program: task loss, distillation and λ(t)·‖σ(S)‖, with scores that learn at their own rate.

    Everything `transformers.Trainer` does stays: its arguments, callbacks, evaluation, checkpoints (safetensors; scores
    and schedule are part of the model's state, so ``train(resume_from_checkpoint=True)`` goes on exactly). Threshold
    and λ follow the share of optimizer steps done. Evaluation always uses the final threshold.

    Args:
        program: what `bpc.compile` returned; ``program.module`` is trained. None distils a plain ``model=`` (the small
            model after compiling, for instance).
        teacher: a model with the same outputs, or None (task loss only). A ``teacher_logits`` column in the data set
            replaces it; see `bpc.train.teacher_logits`.
        score_learning_rate: None takes the spec's, or else one that fits the number of steps (and logs which).
        distillation_weight, temperature: None takes the spec's.
        title: shown before the progress bar.
        args, model, train_dataset, …: as for `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        program: Program | None = None,
        teacher: nn.Module | None = None,
        score_learning_rate: float | None = None,
        distillation_weight: float | None = None,
        temperature: float | None = None,
        title: str | None = None,
        **kwargs: Any,
    ) -> None:
        if program is not None:
            if kwargs.get("model") is not None:
                raise ValueError(
                    "give program= or model=, not both: with a program, program.module is what is trained."
                )
            kwargs["model"] = program.module
        if teacher is not None and not isinstance(teacher, nn.Module):
            raise TypeError(
                f"teacher= takes a loaded model (an nn.Module), not a {type(teacher).__name__}: {teacher!r}"
            )
        self.program = program
        self.mask_set: MaskSet | None = program.mask_set if program is not None else None
        self.teacher = teacher
        spec = program.spec if program is not None else None
        self.score_learning_rate = score_learning_rate or (spec.scores.learning_rate if spec else None)
        self.distillation_weight = _first(distillation_weight, spec.distillation.weight if spec else 0.9)
        self.temperature = _first(temperature, spec.distillation.temperature if spec else 2.0)
        super().__init__(**kwargs)
        self._progress_bar = PruningProgress(self.mask_set, title or ("pruning" if program is not None else "training"))
        if not self.args.disable_tqdm:
            self.remove_callback(transformers.trainer_callback.ProgressCallback)
            self.add_callback(self._progress_bar)
        if teacher is not None:
            teacher.requires_grad_(False).eval()
            self._move_model_to_device(teacher, self.args.device)

    # ---- data: keep the column with the teacher's logits -----------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            self._signature_columns = [*(self._signature_columns or ()), TEACHER_COLUMN]  # type: ignore[assignment]

    # ---- optimizer: weights as always, scores in a group of their own ----------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is not None or self.mask_set is None:
            return super().create_optimizer(model)
        scores = list(self.mask_set.scores.values())
        for score in scores:
            score.requires_grad_(False)
        try:
            optimizer = super().create_optimizer(model)
        finally:
            for score in scores:
                score.requires_grad_(True)
        # The rate is set in create_scheduler, which knows the number of steps.
        optimizer.add_param_group(score_parameters(self.mask_set, self.args.learning_rate))
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        if self.lr_scheduler is None and self.mask_set is not None:
            settings = self.mask_set.settings
            rate = self.score_learning_rate
            if rate is None:
                rate = score_learning_rate(num_training_steps, settings.schedule.final, settings.initial_score)
                note = (
                    f"scores learn at {rate:.2g}: chosen for {num_training_steps} steps, so that they can fall from "
                    f"{settings.initial_score:g} below the final threshold; set score_learning_rate to change it"
                )
                logger.info(note)
                self._progress_bar.note = note
            scores = {id(score) for score in self.mask_set.scores.values()}
            chosen = optimizer or self.optimizer
            assert chosen is not None  # transformers creates the optimizer first
            for group in chosen.param_groups:
                if any(id(p) in scores for p in group["params"]):
                    group["lr"] = rate
                    group.pop("initial_lr", None)
        return super().create_scheduler(num_training_steps, optimizer)

    # ---- a step: clock, losses -------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        if self.mask_set is not None:
            self.mask_set.set_progress(min(1.0, self.state.global_step / max(self.state.max_steps, 1)))
        return super().training_step(model, *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        known = inputs.pop(TEACHER_COLUMN, None)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            if self.distillation_weight > 0 and (known is not None or self.teacher is not None):
                divergence = self._divergence(inputs, outputs, known)
                loss = (1.0 - self.distillation_weight) * loss + self.distillation_weight * divergence
            if self.mask_set is not None:
                loss = loss + self.mask_set.regularization()
        return (loss, outputs) if return_outputs else loss

    def _divergence(self, inputs: dict[str, Any], outputs: Any, known: Tensor | None) -> Tensor:
        """Mean distillation loss over the model's logits."""
        labels = inputs.get("labels")
        if known is not None:
            teacher = {"logits": known}
        else:
            assert self.teacher is not None
            with torch.no_grad():
                teacher = logits_of(self.teacher(**{k: v for k, v in inputs.items() if k != "labels"}))
        student = logits_of(outputs)
        losses = [distillation_loss(student[name], teacher[name], self.temperature, labels) for name in teacher]
        return torch.stack(losses).mean()

    # ---- the best checkpoint ---------------------------------------------------------------------------------------

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Only a checkpoint at the final threshold can be the best: before it little is pruned, and scores are high."""
        if self.mask_set is not None:
            schedule = self.mask_set.settings.schedule
            if schedule.remaining(self.state.global_step / max(self.state.max_steps, 1)) > 0:
                return False
        return super()._determine_best_metric(metrics, trial)

    # ---- what is seen while it runs --------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add threshold, λ factor, density, live heads and FFN dims to every training log.

        Raises `passes.MaskError`, and so ends the run, once scores are NaN.
        """
        if self.mask_set is not None and "loss" in logs:
            self.mask_set.check_scores()  # before more hours go into a run that diverged
            structure = live_structure(self.mask_set)
            assert self.optimizer is not None  # there is a loss, so there was a step
            logs["score_learning_rate"] = self.optimizer.param_groups[-1]["lr"]
            logs["threshold"] = round(self.mask_set.threshold, 5)
            logs["lambda"] = round(self.mask_set.largest_regularization, 4)
            logs["density"] = round(self.mask_set.density(), 4)
            logs["heads"] = sum(structure.heads)
            logs["ffn_dims"] = sum(structure.ffn_dims)
        super().log(logs, *args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `transformers.Trainer.train`; a run that got to its last step leaves the masks at progress 1.

        The model gets its own forward back: accelerate's autocast around it would make every later use bfloat16, and
        cannot be traced.
        """
        attributes = self.model.__dict__
        before = {name: attributes[name] for name in _WRAPPED if name in attributes}
        try:
            result = super().train(*args, **kwargs)
        finally:
            self._progress_bar.close()
            for name in _WRAPPED:
                attributes.pop(name, None)
            attributes.update(before)
        if self.mask_set is not None and self.state.global_step >= self.state.max_steps:
            self.mask_set.set_progress(1.0)  # the last step ran at progress (T − 1)/T
        return result


def _first(value: float | None, default: float) -> float:
    return default if value is None else value
