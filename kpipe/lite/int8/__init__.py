"""Ranges, bias correction, and quantization of int8 files."""

__all__: list[str] = []
