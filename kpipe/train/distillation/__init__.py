"""Training a student network from a teacher network."""

__all__: list[str] = []
