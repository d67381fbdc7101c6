"""The systems over ultralytics (AGPL-3.0), which is imported only where one of them is asked for."""
