"""Split photos into training, validation and test sets.

splitting <- units (photos that stay together), rare_classes (every class in every split)
"""

__all__: list[str] = []
