"""One fit, or a fit in phases, that resumes after it was killed."""

__all__: list[str] = []
