"""`bpc.Trainer`: a transformers.Trainer that prunes while it trains."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import number_of_arguments

from bpc.scores import MaskSet
from bpc.scores.structure import live_structure
from bpc.train.checkpoints import newest_complete
from bpc.train.distilling import DistillingTrainer
from bpc.train.forwards import own_forwards
from bpc.train.importance import start_scores
from bpc.train.optimizer import schedule_scores, score_groups, separate_scores, set_score_rate
from bpc.train.progress import PruningProgress
from bpc.train.refuse import refuse_directions, refuse_masks_without_program, refuse_sharded, refuse_wrappers
from bpc.train.remeasure import remeasure
from bpc.train.sampling import GroupedByLength, begin_epoch
from bpc.train.scores import score_learning_rate

if TYPE_CHECKING:
    from bpc.program import Program

logger = logging.getLogger(__name__)


class Trainer(DistillingTrainer):
    """Fine-prunes a program: task loss, distillation and λ(t)·‖σ(S)‖, with scores that learn at their own rate.

    Everything `transformers.Trainer` does stays: its arguments, callbacks, evaluation, checkpoints (safetensors; scores
    and schedule are part of the model's state, so ``train(resume_from_checkpoint=True)`` goes on exactly, from the
    newest complete checkpoint). Threshold and λ follow the share of optimizer steps done. Evaluation always uses the
    final threshold, and only evaluations at the final threshold count for the best checkpoint and for early stopping.

    A step is the mean over all items (rows, or tokens with a label) of its micro-batches on all ranks, and λ counts
    once, whatever ``gradient_accumulation_steps`` is. Give a task loss of your own as ``compute_loss_func=``, and all
    stays as it is. A subclass that overrides ``compute_loss`` keeps λ, and distillation if it calls
    ``super().compute_loss``; what it returns is a mean over the micro-batch, and it gets ``num_items_in_batch`` only
    where it says ``loss_is_scaled_for_ga = True``.

    Args:
        program: what `bpc.compile` returned; ``program.module`` is trained. None distils a plain ``model=`` (the small
            model after compiling, for instance).
        program_init: in place of a program, a function that makes one, without arguments or of the trial: for
            ``hyperparameter_search``, where every trial begins with a program of its own.
        teacher: a model with the same outputs, or None (task loss only). A ``teacher_logits`` column in the data set,
            and what `bpc.train.ask_once` returns as data set, replace it.
        score_learning_rate: None takes the spec's, or else one that fits the number of steps (and logs which). Scores
            that have a group of their own in an optimizer you bring keep that group's.
        distillation_weight, temperature: None takes the spec's. With weight 1 a model need not have a loss.
        hidden_weight: of the distance between the hidden states of model and teacher, which is added to the loss; None
            takes the spec's ``distillation.hidden``. Above 0, ``teacher=`` runs in every step.
        title: shown before the progress bar.
        args, model, train_dataset, …: as for `transformers.Trainer`.

    Raises ValueError for a teacher with other outputs, a masked model without its program, and ways to train that
    masks do not survive (DeepSpeed, DataParallel, FSDP 1); TypeError for a teacher that is no model.
    """

    def __init__(
        self,
        *,
        program: Program | None = None,
        program_init: Callable[..., Program] | None = None,
        teacher: nn.Module | None = None,
        score_learning_rate: float | None = None,
        distillation_weight: float | None = None,
        temperature: float | None = None,
        hidden_weight: float | None = None,
        title: str | None = None,
        **kwargs: Any,
    ) -> None:
        given = {"program": program, "program_init": program_init, "model": kwargs.get("model")}
        if len([name for name, value in given.items() if value is not None]) > 1:
            raise ValueError(
                "give program=, program_init= or model=, not both: with a program, program.module is what is trained."
            )
        self._given = (score_learning_rate, distillation_weight, temperature, hidden_weight)
        self._program_init = program_init
        self._scores_like: int | None = None  # the optimizer's group they were taken from
        self._newly_separate = False
        self._begins = False  # a run, with its next step
        self._progress_bar = PruningProgress(None, title or "training")
        self._use(program)
        if program is not None:
            refuse_sharded(program.module)
            kwargs["model"] = program.module
        elif program_init is not None:
            kwargs["model_init"] = self._new_model
        else:
            refuse_masks_without_program(kwargs.get("model"))
        super().__init__(
            teacher=teacher,
            distillation_weight=self.distillation_weight,
            temperature=self.temperature,
            hidden_weight=self.hidden_weight,
            **kwargs,
        )
        if self.mask_set is not None:
            self._progress_bar.title = title or "pruning"
            refuse_wrappers(self)
        if not self.args.disable_tqdm:
            self.remove_callback(transformers.trainer_callback.ProgressCallback)
            self.add_callback(self._progress_bar)

    def _masks(self) -> MaskSet | None:
        return self.mask_set

    def _use(self, program: Program | None) -> None:
        """Train ``program`` from now on, by its spec where no argument says otherwise."""
        spec = program.spec if program is not None else None
        rate, weight, temperature, hidden = self._given
        self.program = program
        self.mask_set: MaskSet | None = program.mask_set if program is not None else None
        self.score_learning_rate = rate or (spec.scores.learning_rate if spec else None)
        self.distillation_weight = _first(weight, spec.distillation.weight if spec else 0.9)
        self.temperature = _first(temperature, spec.distillation.temperature if spec else 2.0)
        self.hidden_weight = _first(hidden, spec.distillation.hidden if spec else 0.0)
        self._progress_bar.masks = self.mask_set

    def _new_model(self, trial: Any = None) -> nn.Module:
        assert self._program_init is not None
        takes_trial = number_of_arguments(self._program_init) > 0
        program = self._program_init(trial) if takes_trial else self._program_init()
        self._use(program)
        return program.module

    # ---- optimizer: weights as always, scores in a group of their own ----------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.mask_set is None:
            return super().create_optimizer(model)
        scores = list(self.mask_set.scores.values())
        mine = self.optimizer is None
        for score in scores:
            score.requires_grad_(not mine)
        try:
            optimizer = super().create_optimizer(model)
        finally:
            for score in scores:
                score.requires_grad_(True)
        # The rate is set in create_scheduler, which knows the number of steps.
        like = separate_scores(optimizer, self.mask_set)
        self._newly_separate = like is not None
        self._scores_like = self._scores_like if like is None else like
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        if self.mask_set is not None and self._scores_like is not None:
            rate = self._score_rate(num_training_steps)
            if self.lr_scheduler is None:
                chosen = optimizer or self.optimizer
                assert chosen is not None  # transformers creates the optimizer first
                set_score_rate(chosen, self.mask_set, rate)
            elif self._newly_separate:
                schedule_scores(self.lr_scheduler, self.mask_set, rate, self._scores_like)
        return super().create_scheduler(num_training_steps, optimizer)

    def _score_rate(self, steps: int) -> float:
        assert self.mask_set is not None
        if self.score_learning_rate is not None:
            return self.score_learning_rate
        settings = self.mask_set.settings
        rate = score_learning_rate(steps, settings.schedule.final, settings.initial_score)
        note = (
            f"scores learn at {rate:.2g}: chosen for {steps} steps, so that they can fall from "
            f"{settings.initial_score:g} below the final threshold; set score_learning_rate to change it"
        )
        logger.info(note)
        self._progress_bar.note = note
        return rate

    # ---- data ------------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return GroupedByLength(sampler.batch_size * self.args.world_size, sampler.lengths, seed)

    def _run_epoch(self, model: Any, epoch: int, train_dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        begin_epoch(train_dataloader, epoch)
        return super()._run_epoch(model, epoch, train_dataloader, *args, **kwargs)

    # ---- a step: clock, losses -------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        if self.mask_set is None:
            return super().training_step(model, *args, **kwargs)
        if self._begins:
            self._begins = False
            self._start_scores()
        self._advance()
        penalty = None
        if self.accelerator.sync_gradients:  # once a step: the same on all ranks, over which gradients are averaged
            penalty = self.mask_set.regularization()
            self.accelerator.backward(penalty)
        loss = super().training_step(model, *args, **kwargs)
        return loss if penalty is None else loss + penalty.detach()

    def _start_scores(self) -> None:
        """Scores of a run that begins, where its spec wants them to start from importance."""
        assert self.program is not None
        assert self.mask_set is not None
        assert self.model is not None
        wanted = self.program.spec.scores
        if wanted.start == "constant" or self.state.global_step > 0:
            return
        items, self._step_items = self._step_items, None  # these batches are no part of a step
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self.compute_loss_context_manager():
            start_scores(
                self.model,
                self.mask_set,
                (self._prepare_inputs(batch) for batch in islice(self.get_train_dataloader(), wanted.batches)),
                wanted.start,
                spread=wanted.spread,
                loss=lambda model, batch: self.compute_loss(model, dict(batch)),  # type: ignore[return-value, arg-type]
                together=lambda importance: self.accelerator.reduce(importance, "mean"),
            )
        self._step_items = items

    def _advance(self) -> None:
        """Move the masks to where the run is. A speed-up that is asked for is measured on the way."""
        assert self.program is not None
        assert self.mask_set is not None
        if note := remeasure(self.program, self._done(), measures=self.is_world_process_zero()):
            logger.info(note)
            self._progress_bar.say(note)
        self.mask_set.set_progress(self._done())

    def _done(self) -> float:
        """The finished share of the run."""
        return min(1.0, self.state.global_step / max(self.state.max_steps, 1))

    def _threshold_arrived(self) -> bool:
        """Whether what is left of the run has the final threshold; True without masks."""
        return self.mask_set is None or self.mask_set.settings.schedule.remaining(self._done()) == 0

    # ---- the best checkpoint ---------------------------------------------------------------------------------------

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Only a checkpoint at the final threshold can be the best: before it little is pruned, and scores are high."""
        return self._threshold_arrived() and super()._determine_best_metric(metrics, trial)

    # ---- what is seen while it runs --------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add threshold, λ factor, density, live heads and FFN dims, and cost now and asked, to every training log.

        Raises `passes.MaskError`, and so ends the run, once scores are NaN.
        """
        if self.mask_set is not None and "loss" in logs:
            self.mask_set.check_scores()  # before more hours go into a run that diverged
            if (budget := self.mask_set.budget) is not None:
                self._advance()  # the scores have moved since the step chose its masks
                whole = budget.costs().total()
                logs["cost"] = round(budget.cost() / whole, 4)
                logs["cost_asked"] = round(budget.wanted / whole, 4)
            logs["score_learning_rate"] = score_groups(self.optimizer, self.mask_set)[-1]["lr"]
            logs["threshold"] = round(self.mask_set.threshold, 5)
            logs["lambda"] = round(self.mask_set.largest_regularization, 4)
            logs["density"] = round(self.mask_set.density(), 4)
            structure = live_structure(self.mask_set)
            logs["heads"] = sum(structure.heads)
            logs["ffn_dims"] = sum(structure.ffn_dims)
        super().log(logs, *args, **kwargs)

    # ---- whole runs, and many of them --------------------------------------------------------------------------------

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers': with ``program_init=``, every trial trains a program of its own.

        With several directions, Optuna's study gives the trials that no other beats. Afterwards ``program`` is the last
        trial's, where trials run in this process (Optuna), and None where workers had them (Ray Tune).

        Raises ValueError for several directions under a backend that has one.
        """
        refuse_directions(super().hyperparameter_search, *args, **kwargs)
        if self._program_init is not None:
            self._use(None)  # like the model: backends with workers pickle the trainer
            self.optimizer, self.lr_scheduler = None, None
        return super().hyperparameter_search(*args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As `transformers.Trainer.train`; a run that got to the final threshold leaves the masks at progress 1.

        ``resume_from_checkpoint=True`` goes on from the newest complete checkpoint. The model gets its own forward
        back: accelerate's autocast around it would make every later use bfloat16, and cannot be traced.
        """
        if resume_from_checkpoint is True and not self.is_deepspeed_enabled:
            resume_from_checkpoint = newest_complete(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise ValueError(f"{self.args.output_dir} holds no complete checkpoint to go on from")
        self._begins = True
        try:
            with own_forwards(self):
                result = super().train(resume_from_checkpoint, *args, **kwargs)
            self._gather()
        finally:
            self._progress_bar.close()
            self._step_items = None
        if self.mask_set is not None and self._threshold_arrived():
            self.mask_set.set_progress(1.0)  # the last step ran at progress (T − 1)/T, a best checkpoint's earlier
        return result


def _first(value: float | None, default: float) -> float:
    return default if value is None else value
