"""The score from which on a finding counts where nothing else was asked for, in every verb."""

DEFAULT_SCORE = 0.05
"""True findings of a class that was not trained on often score 0.05 to 0.15 (reports/real.md)."""
