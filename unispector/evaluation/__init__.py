"""Average precision, pictures and the report."""
