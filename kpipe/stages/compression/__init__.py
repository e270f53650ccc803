"""What stages share that make a network smaller: retraining, teachers, targets."""

__all__: list[str] = []
