"""Timing files and graphs in processes of their own. Imports nothing by itself: the workers load what they time."""
