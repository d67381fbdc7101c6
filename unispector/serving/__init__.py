"""The detector as a service: what MLflow and HTTP clients talk to."""
