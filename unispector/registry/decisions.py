"""Decisions of people and rules on registered versions: promote, approve, refuse, roll back.

Every decision is written down before it is carried out and put into the history afterwards. One that was
cut off in between is carried out by the next decision, whatever that is, and has one entry in the history.

A version is a number or an alias, `by` is `rules` or a user's name, and a reason is given in words. Every
function raises RegistryError if there is no such version or no reason.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from unispector.errors import RegistryError, UniSpectorError
from unispector.tracking.registry import CHALLENGER, CHAMPION, Action, Event, ModelRegistry, ModelVersion, now

REFUSED, RETIRED = "refused", "retired"

_LONGEST_REASON = 2000


def approve(registry: ModelRegistry, version: str | int, by: str, reason: str) -> Event:
    """Let a person make a version champion, whatever the rules said; see `promote_version`."""
    return promote_version(registry, registry.version(version).number, by, reason, action="approved")


def promote_version(
    registry: ModelRegistry,
    number: int,
    by: str,
    reason: str,
    files: Sequence[Path] = (),
    *,
    action: Action = "promoted",
) -> Event:
    """Make a version champion; the champion before it retires.

    Args:
        files: kept in the history with the event.
        action: how the history calls it.

    Returns:
        The event; of a version that is champion already, the one that made it so.

    Raises:
        RegistryError: the model does not load and predict.
    """
    _check_reason(reason)
    finish_begun(registry, lambda event: files if (event.action, event.version) == (action, number) else ())
    champion = registry.find(CHAMPION)
    if champion is not None and champion.number == number:
        made = [event for event in registry.history() if event.version == number and event.action != REFUSED]
        if made:
            return made[0]
    check_model(registry, number)
    return _carry_out(registry, Event(action, number, _other(champion, number), by, reason, now()), files)


def refuse(
    registry: ModelRegistry, version: str | int, by: str, reason: str, files: Sequence[Path] = ()
) -> Event:
    """Turn a version down, and keep `files` with the event; it can still be approved.

    Returns:
        The event; where the last one said the same, that one.

    Raises:
        RegistryError: it is the champion.
    """
    _check_reason(reason)
    number = registry.version(version).number
    finish_begun(
        registry, lambda event: files if (event.action, event.version) == ("refused", number) else ()
    )
    wanted = registry.version(number)
    if CHAMPION in wanted.aliases:
        raise RegistryError(f"{registry.name} {number} is champion; roll back, or approve another version")
    last = last_event(registry, number)
    if (
        last
        and wanted.tags.get("state") == REFUSED
        and (last.action, last.by, last.reason) == (REFUSED, by, reason)
    ):
        return last
    champion = registry.find(CHAMPION)
    return _carry_out(registry, Event("refused", number, _other(champion, number), by, reason, now()), files)


def rollback(registry: ModelRegistry, by: str, reason: str, to: str | int | None = None) -> Event:
    """Bring back an earlier champion.

    Args:
        to: number or alias; None = the champion before this one, by the history.

    Returns:
        The event; where a rollback had been cut off, it is finished and its event returned.

    Raises:
        RegistryError: there is no champion, none before it, or the version does not load and predict.
    """
    _check_reason(reason)
    target = None if to is None else registry.version(to).number
    for event in reversed(finish_begun(registry)):
        if event.action == "rolled back" and target in (None, event.version):
            return event
    champion = registry.version(CHAMPION).number
    if target is None:
        target = _champion_before(registry, champion)
    if target == champion:
        raise RegistryError(f"{registry.name} {target} is champion already; name another version")
    check_model(registry, target)
    return _carry_out(registry, Event("rolled back", target, champion, by, reason, now()))


def last_event(registry: ModelRegistry, number: int) -> Event | None:
    """The latest decision on a version; None without one."""
    return next((event for event in registry.history() if event.version == number), None)


def check_model(registry: ModelRegistry, number: int) -> None:
    """Load a version as the service does, and let it predict.

    Raises:
        RegistryError: it does not; the message says why.
    """
    from unispector.registry.registered_model import answer_example

    directory = registry.model_directory(number)
    try:
        answer_example(directory)
    except UniSpectorError as error:
        raise RegistryError(f"{registry.name} {number} does not work with this code ({error})") from error


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > _LONGEST_REASON:
        raise RegistryError(f"a reason of {len(reason)} letters; say why in 1 to {_LONGEST_REASON} letters")


def _champion_before(registry: ModelRegistry, number: int) -> int:
    """The champion before the one of this number; a rollback takes back all champions after its target."""
    line: list[int] = []
    for event in reversed(registry.history()):
        if event.action == "rolled back":
            line = _until(line, event.version)
        if event.action != "refused":
            line.append(event.version)
    earlier = _until(line, number)
    if not earlier:
        raise RegistryError(
            f"{registry.name}: the history has no champion before version {number}; name one with --to"
        )
    return earlier[-1]


def _until(line: list[int], number: int) -> list[int]:
    """Return the text before the last `number`; all of a line without it."""
    return line[: len(line) - 1 - line[::-1].index(number)] if number in line else line


def finish_begun(
    registry: ModelRegistry, files_of: Callable[[Event], Sequence[Path]] = lambda _: ()
) -> list[Event]:
    """Carry out decisions that were cut off, with the files to keep, and return them, oldest first."""
    return [_carry_out(registry, event, files_of(event)) for event in registry.begun()]


def _carry_out(registry: ModelRegistry, event: Event, files: Sequence[Path] = ()) -> Event:
    """Every step may be repeated."""
    registry.begin(event, files)
    if event.action == "refused":
        registry.tag(event.version, {"state": REFUSED})
    else:
        registry.set_alias(CHAMPION, event.version)
        if event.before is not None:
            registry.tag(event.before, {"state": RETIRED})
        registry.tag(event.version, {"state": CHAMPION})
    challenger = registry.find(CHALLENGER)
    if challenger is not None and challenger.number == event.version:
        registry.remove_alias(CHALLENGER)
    registry.finish(event)
    return event


def _other(champion: ModelVersion | None, number: int) -> int | None:
    return None if champion is None or champion.number == number else champion.number
