"""Keras 3 models rebuilt in tf_keras, and back."""

__all__: list[str] = []
