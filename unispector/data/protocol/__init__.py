"""The benchmark's protocol: seen and unseen classes, prompts and targets, ours or the official ones."""
