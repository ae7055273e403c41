"""A past answer given again."""
