"""Images that someone sent, decoded where they can do no harm."""
