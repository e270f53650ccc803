"""Running `.tflite` files with LiteRT: predictions, accuracy, latency."""

__all__: list[str] = []
