"""The routes of the page: its files, and the bench behind it."""
