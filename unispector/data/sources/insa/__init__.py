"""Readers of InsA's seven raw releases."""
