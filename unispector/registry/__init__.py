"""Versions of the trained model: how one is registered, compared with the champion, and decided on."""
