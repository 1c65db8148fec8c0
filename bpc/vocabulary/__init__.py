"""Exact reduction of a model's vocabulary to the tokens that a corpus uses."""
