"""The gate: what annotation and split files must hold, judged by Great Expectations; near-duplicates."""
