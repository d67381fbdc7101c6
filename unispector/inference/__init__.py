"""A trained detector in use: prompts in, boxes and masks out."""
