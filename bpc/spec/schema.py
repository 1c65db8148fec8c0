"""The pattern spec: one schema for Python objects, TOML, YAML and JSON.

A spec is a list of rules (which linears, cut into which blocks) and the numbers of the method that scores them. Symbols
and defaults follow method.md and sections 3 to 5 of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bpc.scores.binarize import Method
from bpc.scores.mask_set import MaskSettings
from bpc.scores.schedule import Schedule

Symbol = Literal["in_features", "out_features", "head_dim"]
BlockSize = Annotated[int, Field(ge=1)] | Symbol


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Rule(_Section):
    """Which linears to mask, and the blocks their weights are cut into."""

    roles: tuple[str, ...] = Field(description="structural roles, globs allowed: 'attention.*', 'ffn.up'")
    block: tuple[BlockSize, BlockSize] = Field(
        description="(M', N'): output x input features of one block, numbers or symbols; attention.output takes it "
        "transposed, and so does ffn.down in a paired rule"
    )
    names: tuple[str, ...] = Field(default=("*",), description="parameter-name globs that narrow the rule")
    stack: Literal["any", "encoder", "decoder"] = Field(
        default="any", description="side of a sequence-to-sequence model"
    )
    paired: bool = Field(
        default=False,
        description="the linears of one FFN (or one attention) share scores: row i of up and gate lives and dies with "
        "column i of down, head i of query, key and value with head i of the output projection; with blocks smaller "
        "than a head, row d of query with row d of key, and row d of value with column d of the output projection",
    )
    group: str | None = Field(
        default=None, description="regularisation group; by default the first part of the role, after 'decoder.' there"
    )

    @field_validator("roles", "names", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class ThresholdSpec(_Section):
    """τ at the start and at the end; for topk and magnitude the kept fraction. Defaults depend on the method."""

    initial: float | None = Field(
        default=None, ge=0, le=1, description="τ at the start; by default 0, or 1 where τ is a kept fraction"
    )
    final: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="τ at the end, reached along a cubic; by default 0.1, or 0.25 of kept fractions",
    )


class ScheduleSpec(_Section):
    """When τ moves: not before ``initial_warmup * warmup`` and no longer after ``1 - final_warmup * warmup``."""

    warmup: float = Field(default=0.1, ge=0, lt=1, description="w as a share of the run")
    initial_warmup: float = Field(default=1.0, ge=0, description="wi: τ moves from wi·w …")
    final_warmup: float = Field(default=2.0, ge=0, description="wf: … to 1 − wf·w")

    @model_validator(mode="after")
    def _leaves_time(self) -> ScheduleSpec:
        if (self.initial_warmup + self.final_warmup) * self.warmup >= 1:
            raise ValueError("(initial_warmup + final_warmup) * warmup must stay below 1, or the threshold never moves")
        return self


class Regularization(_Section):
    """λ‖σ(S)‖: mean over a group's score tensors of the mean of σ(S), summed over groups by weight."""

    final_lambda: float = Field(default=20.0, ge=0, description="λ once the threshold has reached its final value")
    groups: dict[str, float] = Field(
        default_factory=dict, description="relative weight per group, globs allowed: {'decoder.*': 2.0}; default 1"
    )
    fragmentation: float = Field(
        default=0.0,
        ge=0,
        description="what a dim that only pads a head counts, in dims that are kept: heads of a layer are as wide as "
        "its fullest; for paired rules with blocks smaller than a head",
    )

    def weight(self, group: str) -> float:
        """Relative weight of a group: its own entry, else the first glob that matches, else 1."""
        if group in self.groups:
            return self.groups[group]
        return next((w for pattern, w in self.groups.items() if fnmatchcase(group, pattern)), 1.0)


Start = Literal["constant", "gradient", "fisher"]


class Scores(_Section):
    """How scores start and how fast they learn."""

    init: float = Field(default=0.0, description="initial score; σ(0) = 0.5 lies well above the final threshold")
    start: Start = Field(
        default="constant",
        description="all at init; or spread around it by importance, the |gradient| or its square over a few batches",
    )
    spread: float = Field(default=1.0, gt=0, description="how far from init they start at most, by importance")
    batches: int = Field(default=16, ge=1, description="training batches that importance is measured on")
    revive: bool = Field(
        default=False,
        description="units of paired rules that were pruned go on being computed, so that their scores learn whether "
        "they would help; without it they get no gradient from the task",
    )
    learning_rate: float | None = Field(default=None, gt=0, description="None: chosen from the number of steps")


class Distillation(_Section):
    """loss = (1 - weight)·CE + weight·T²·KL(teacher ‖ student) + hidden·H; used when a teacher is given.

    H is the relative squared error of every layer's hidden states (`bpc.train.hidden`).
    """

    weight: float = Field(default=0.9, ge=0, le=1, description="share of the distance to the teacher in the loss")
    temperature: float = Field(default=2.0, gt=0, description="T, by which logits are divided before they are compared")
    hidden: float = Field(
        default=0.0, ge=0, description="weight of the distance of hidden states; above 0 the teacher runs in every step"
    )


class Spec(_Section):
    """A pattern spec. See `bpc.load_spec` for reading one, `bpc.spec.PRESETS` for the paper's."""

    name: str = Field(default="custom", description="for messages and reports")
    rules: tuple[Rule, ...] = Field(min_length=1, description="a weight belongs to the first rule that matches it")
    protect: tuple[str, ...] = Field(default=(), description="globs of weight names that are never masked")
    mask_bias: bool = Field(
        default=True,
        description="the bias of a fully pruned row is masked with it; where blocks are whole columns the bias stays",
    )
    method: Method = Field(
        default="sigmoid_threshold",
        description="keep where σ(S) > τ; with topk and magnitude τ is the kept fraction, of scores or of |weights|",
    )
    threshold: ThresholdSpec = ThresholdSpec()
    floor: float = Field(default=0.0, ge=0, le=1, description="share of blocks kept whatever the threshold says")
    schedule: ScheduleSpec = ScheduleSpec()
    regularization: Regularization = Regularization()
    scores: Scores = Scores()
    distillation: Distillation = Distillation()
    fill: bool = Field(default=False, description="after compiling, re-initialise remaining zeros and fine-tune again")

    @field_validator("protect", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _scores_are_read(self) -> Spec:
        if self.method == "magnitude" and self.scores.start != "constant":
            raise ValueError(f'scores.start="{self.scores.start}": magnitude ranks weights, and reads no scores')
        return self

    def threshold_schedule(self) -> Schedule:
        """The schedule in shares of the run, with the method's own default thresholds filled in."""
        initial, final = (0.0, 0.1) if self.method == "sigmoid_threshold" else (1.0, 0.25)
        schedule = self.schedule
        return Schedule(
            initial=initial if self.threshold.initial is None else self.threshold.initial,
            final=final if self.threshold.final is None else self.threshold.final,
            warmup=schedule.initial_warmup * schedule.warmup,
            cooldown=schedule.final_warmup * schedule.warmup,
        )

    def mask_settings(self, groups: Iterable[str]) -> MaskSettings:
        """The masks' share of the spec, λ resolved for the ``groups`` that occur."""
        weights = self.regularization
        return MaskSettings(
            method=self.method,
            schedule=self.threshold_schedule(),
            regularization={group: weights.final_lambda * weights.weight(group) for group in groups},
            min_kept=self.floor,
            fragmentation=weights.fragmentation,
            revive=self.scores.revive,
            initial_score=self.scores.init,
        )
