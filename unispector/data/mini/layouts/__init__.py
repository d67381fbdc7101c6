"""insa-mini in the native layouts of the seven releases: one module per layout, their quirks included."""
