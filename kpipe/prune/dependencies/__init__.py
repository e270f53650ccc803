"""Which channels must be removed together, and what they cost."""

__all__: list[str] = []
