"""Verification: do two graphs compute the same function, and where do they part?"""

from passes.verify.compare import Agreement, compare, verify_equivalent
from passes.verify.errors import NotFiniteError, VerificationError
from passes.verify.inputs import fresh_inputs
from passes.verify.record import Reference, Trial, record_reference

__all__ = [
    "Agreement",
    "NotFiniteError",
    "Reference",
    "Trial",
    "VerificationError",
    "compare",
    "fresh_inputs",
    "record_reference",
    "verify_equivalent",
]
