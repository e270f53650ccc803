"""Running `.tflite` files with LiteRT: predictions, accuracy, and latency."""

__all__: list[str] = []
