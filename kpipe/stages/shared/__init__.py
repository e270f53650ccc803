"""What several stages use."""

__all__: list[str] = []
