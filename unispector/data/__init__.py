"""Data: raw releases to annotation files, splits, samples and batches."""
