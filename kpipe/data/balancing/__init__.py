"""Class weights, over- and under-sampling, and minority augmentation."""

__all__: list[str] = []
