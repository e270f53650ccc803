"""A Keras model as plain data."""

__all__: list[str] = []
