"""The stages of the pipeline: files in, files out, one verb a module."""
