"""Training with TensorFlow Model Optimization."""

__all__: list[str] = []
