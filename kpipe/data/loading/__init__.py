"""Decoding photos and batching them for `fit`, `evaluate` and `predict`."""

__all__: list[str] = []
