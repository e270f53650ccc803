"""Removing filters and residual blocks from a model."""

__all__: list[str] = []
