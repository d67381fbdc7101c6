"""What a service can run out of: told to whoever asks, and to the log once a minute."""

import errno
import logging
import time

logger = logging.getLogger(__name__)

QUIET_SECONDS = 60.0
"""Between two messages on the same lack."""

_LACKS = {
    errno.EMFILE: "the service has no open files left; raise `ulimit -n`",
    errno.ENFILE: "the machine has no open files left",
    errno.ENOSPC: "the service's disk is full",
    errno.EDQUOT: "the service's disk is full",
    errno.ENOMEM: "the machine's memory is full",
}
_told: dict[str, float] = {}


def lack(error: object) -> str:
    """What there is too little of just now, by an error; empty of other errors. Says it in the log."""
    number = error.errno if isinstance(error, OSError) else None
    text = _LACKS.get(number or 0, "")
    now = time.monotonic()
    if text and now >= _told.get(text, 0.0):
        _told[text] = now + QUIET_SECONDS
        logger.warning("%s; requests wait or are refused", text)
    return text
