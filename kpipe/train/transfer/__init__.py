"""Transfer learning: which layers train, and features of those that do not."""

__all__: list[str] = []
