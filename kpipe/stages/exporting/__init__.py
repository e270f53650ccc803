"""How Export calibrates, checks and describes a file."""

__all__: list[str] = []
