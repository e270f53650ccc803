"""Splitting photos into training, validation and test sets."""

__all__: list[str] = []
