"""The walk through all public names with wrong arguments; see `walk`."""
