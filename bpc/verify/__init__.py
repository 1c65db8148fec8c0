"""An independent check of what `DenseModel.save_pretrained` wrote; see `verify`."""

from bpc.verify.check import Unusable, Verdict, verify

__all__ = ["Unusable", "Verdict", "verify"]
