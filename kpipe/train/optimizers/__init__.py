"""Optimizers, learning rate schedules, and the switch from one optimizer to another."""

__all__: list[str] = []
