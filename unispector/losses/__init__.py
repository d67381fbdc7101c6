"""Matching of queries with instances, and the training loss (paper eq. 1)."""
