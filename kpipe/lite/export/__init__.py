"""Export of a Keras model to the bytes of a `.tflite` file."""

__all__: list[str] = []
