"""Reading folders and tables of labelled photos into a manifest."""

__all__: list[str] = []
