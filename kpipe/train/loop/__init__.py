"""Training in one fit or in phases, with checkpoints from which a killed run resumes."""

__all__: list[str] = []
