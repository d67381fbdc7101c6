"""A message to the people in charge, through the hook they named: a webhook or a command."""

import http.client
import json
import logging
import os
import shlex
import subprocess
import urllib.request

HOOK = "UNISPECTOR_ALERT"
"""Environment variable: a URL, to which `{"text": ...}` is posted, or a command, which gets the text as its
last argument. It may hold a secret, hence no parameter."""

_SECONDS = 20

logger = logging.getLogger(__name__)


def alert(text: str) -> bool:
    """Send a message; trouble with the hook is logged and stops nothing.

    Returns:
        Whether a hook is named and took it.
    """
    hook = os.environ.get(HOOK, "").strip()
    logger.info("alert: %s", text)
    if not hook:
        return False
    try:
        if hook.startswith(("http://", "https://")):
            _post(hook, text)
        else:
            # The operator's own command; no shell reads the text.
            command = [*shlex.split(hook), text]
            subprocess.run(command, check=True, timeout=_SECONDS, stdout=subprocess.DEVNULL)  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError, http.client.HTTPException) as error:
        # A webhook's address is its password: only the kind of trouble is named.
        logger.warning("%s: the alert could not be sent (%s)", HOOK, type(error).__name__)
        return False
    return True


def _post(url: str, text: str) -> None:
    request = urllib.request.Request(  # noqa: S310
        url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
        pass
