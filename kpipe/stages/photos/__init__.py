"""The photos that Data, Balance and Augment prepared, for training and evaluation."""

__all__: list[str] = []
