"""The command line: one verb per thing a user does; all logic is in the other rooms.

Heavy packages load inside the verbs, so that `unispector --help` answers at once.
"""

from unispector.cli.main import main

__all__ = ["main"]
