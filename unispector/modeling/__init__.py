"""The detector's network."""
