"""The pruning loop: rank, remove, retrain, repeat."""

__all__: list[str] = []
