"""Inspection of whole folders and buckets."""
