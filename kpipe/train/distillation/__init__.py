"""Knowledge distillation: training a student on the soft targets and features of a teacher."""

__all__: list[str] = []
