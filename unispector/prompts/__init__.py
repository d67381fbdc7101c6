"""The prompts in production: marked images in versions, and how a new defect joins them."""
