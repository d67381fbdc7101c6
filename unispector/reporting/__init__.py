"""Reports: what they say of figures, and how that looks as HTML, Markdown and JSON."""
