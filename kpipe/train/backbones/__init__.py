"""Backbones by name, their pretrained weights, and the same network at another image size."""

__all__: list[str] = []
