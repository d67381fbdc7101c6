"""The inspection bench: a folder of images, marks on some of them, findings on all; no web in here."""
