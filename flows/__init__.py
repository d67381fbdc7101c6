"""Prefect flows: when and how often the stages run; no logic of their own."""

from pathlib import Path

from unispector.environment import work_offline

# Prefect reads its settings when it is imported, which every module below does first of all.
work_offline(Path.cwd())
