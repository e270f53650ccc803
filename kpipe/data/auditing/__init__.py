"""What would spoil a training, found before it begins.

findings <- duplicates, spelling, cleaning
"""

__all__: list[str] = []
