"""Pretrained backbones and their weights."""

__all__: list[str] = []
