"""Average precision, images and the report."""
