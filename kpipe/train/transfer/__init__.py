"""Fine-tuning of a network's last layers, and cached features of the frozen ones."""

__all__: list[str] = []
