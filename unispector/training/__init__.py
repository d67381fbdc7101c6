"""Optimisation: a loop that knows neither Ray nor MLflow, and the Ray Train adapter over it."""
