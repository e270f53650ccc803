"""Ranges, biases and rounding errors of int8 files."""

__all__: list[str] = []
