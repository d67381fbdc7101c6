"""The benchmark: its protocol on whole sets, robustness sweeps, and any detector one class at a time."""
