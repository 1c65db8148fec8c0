"""Fine-pruning: the Trainer, distillation, and helpers for a hand-written loop."""

from bpc.train.distill import distillation_loss
from bpc.train.fill import fill_zeros
from bpc.train.importance import start_scores
from bpc.train.interrupt import ResumableInterrupt
from bpc.train.progress import PruningProgress
from bpc.train.scores import score_learning_rate, score_parameters, weight_parameters
from bpc.train.seq2seq import Seq2SeqTrainer
from bpc.train.sharded import gather, replica
from bpc.train.taught import Taught, ask_once
from bpc.train.trainer import Trainer

__all__ = [
    "PruningProgress",
    "ResumableInterrupt",
    "Seq2SeqTrainer",
    "Taught",
    "Trainer",
    "ask_once",
    "distillation_loss",
    "fill_zeros",
    "gather",
    "replica",
    "score_learning_rate",
    "score_parameters",
    "start_scores",
    "weight_parameters",
]
