"""Optimizers by name, schedules, layer-wise learning rate decay, and the optimizer switch."""

__all__: list[str] = []
