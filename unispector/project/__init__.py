"""The project around the detector: its paths, parameters, lineage, timings and operation."""
