"""Pure functions on boxes, masks, points, spectra and files."""
