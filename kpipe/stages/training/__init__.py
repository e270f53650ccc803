"""How FineTune, Ensemble and Distill train a network: the recipe, its phases and its members."""

__all__: list[str] = []
