"""Criteria that rank filters by importance."""

__all__: list[str] = []
