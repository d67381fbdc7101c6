"""A machine-learning backend of Label Studio: its requests answered with the service's model and prompts."""
