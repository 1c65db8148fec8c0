"""Shrinking a checkpoint that is too large for memory: planned on the meta device, carried out tensor by tensor."""

from bpc.streaming.shrink import StreamError, stream_shrink

__all__ = ["StreamError", "stream_shrink"]
