"""The similarity prior and its candidates, which are not in the paper."""
