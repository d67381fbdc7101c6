"""The prompts in production: images and marks in versions that are never rewritten.

Images are kept as they came, so any later model can encode them anew. A folder of the store holds

    pictures/<sha256>.<suffix>           as they came
    versions/<number>.json               all classes of a version, and where it came from
    versions/<number>.<hash>             a version not in use that had the number before: set aside, not read
    CURRENT                              number of the version in use
    banks/<classes>-<model>.safetensors  encoded prompts of the version in use, made again when absent
    .lock                                held by whoever writes
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from unispector.data.coco import Annotations
from unispector.errors import DataError, PromptBankError
from unispector.inference.calibration import Calibration
from unispector.ops.files import atomic_write_bytes, atomic_write_json, atomic_write_text, remove_leftovers
from unispector.ops.json_text import parse_json
from unispector.ops.locks import held
from unispector.prompts.marks import (
    MarkedImage,
    StoredPrompt,
    as_annotations,
    check_new,
    checked_label,
    one_line,
)

if TYPE_CHECKING:  # the detector takes seconds to import, and lists of classes need none
    from unispector.inference.detector import UniSpector
    from unispector.inference.prompt_bank import PromptBank

__all__ = ["MarkedImage", "PromptSet", "PromptStore", "StoredPrompt"]

FORMAT = "unispector prompts 2"
READ = ("unispector prompts 1", FORMAT)  # one of 1 has no negatives
_NOT_A_VERSION = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError)
LOCK_SECONDS = 10.0
_NEWEST = "write that of the newest version into it; `unispector prompts revert` goes back"
_MEND = "restore the file from a backup of the store"


@dataclass(frozen=True)
class PromptSet:
    """One version of the prompts in production."""

    version: int = 0  # 0 is the empty one that every store begins with
    parent: int | None = None  # the version before it; None of version 0
    time: str = ""  # when it was made, ISO 8601 in UTC
    by: str = ""
    note: str = ""
    # The prompts of each class, at least one.
    classes: dict[str, tuple[StoredPrompt, ...]] = field(default_factory=dict)
    # Where the change came from, such as the hash of a folder and figures of checks.
    lineage: dict[str, str] = field(default_factory=dict)
    # Of classes that were calibrated: fingerprint of the model, and what its scores mean.
    calibrations: dict[str, tuple[str, Calibration]] = field(default_factory=dict)

    @property
    def pictures(self) -> frozenset[str]:
        """Names of all kept images that it needs."""
        return frozenset(prompt.picture for prompts in self.classes.values() for prompt in prompts)

    @property
    def digest(self) -> str:
        """64 hex digits that tell its classes and prompts from any others."""
        return _digest(list(_plain(self.classes).items()))

    def calibrations_of(self, model: str) -> dict[str, Calibration]:
        """What a model's scores mean, by class, as far as it was calibrated."""
        return {name: own for name, (of, own) in self.calibrations.items() if of == model}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read the output of `as_dict`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, DataError: it is no such thing.
        """
        classes = {
            checked_label(label): tuple(StoredPrompt.from_dict(prompt) for prompt in prompts)
            for label, prompts in content["classes"].items()
        }
        time, by, note = (str(content[key]) for key in ("time", "by", "note"))
        lineage = {str(key): str(value) for key, value in content["lineage"].items()}
        known = {
            label: (str(model), Calibration.from_dict(calibration))
            for label, (model, calibration) in content.get("calibrations", {}).items()
        }
        if any(all(prompt.negative for prompt in prompts) for prompts in classes.values()):
            raise ValueError("a class without a prompt")
        return cls(int(content["version"]), int(content["parent"]), time, by, note, classes, lineage, known)

    def as_dict(self) -> dict[str, Any]:
        """The version as plain lists and dicts."""
        calibrations = {label: (model, own.as_dict()) for label, (model, own) in self.calibrations.items()}
        return {**vars(self), "classes": _plain(self.classes), "calibrations": calibrations}


class PromptStore:
    """A folder with the prompts in production.

    Any number of processes may read and write it. One that is killed while it writes leaves the version
    before or the new one.

    Attributes:
        folder: made by the first change.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def current(self) -> PromptSet:
        """The version in use; version 0, without a class, of a new store.

        Raises:
            PromptBankError: a file of the store is damaged or gone; the message names it and the remedy.
        """
        number = self._number()
        return self._read(number, f"{_MEND}, or go back: write {number - 1} into {self.folder / 'CURRENT'}")

    def version(self, number: int) -> PromptSet:
        """One version of the history.

        Raises:
            PromptBankError: there is none of this number, or its file is damaged.
        """
        newest = self._number()
        if not 0 <= number <= newest:
            raise PromptBankError(
                f"{self.folder}: no version {number} of the prompts; there are 0 to {newest}, "
                "`unispector prompts history` lists them"
            )
        return self._read(number)

    def history(self, most: int | None = None) -> tuple[PromptSet, ...]:
        """The versions, newest first, without version 0.

        A version whose file is damaged or gone has no class, and a note that names the file.

        Args:
            most: only so many, the newest, are read; None = all.

        Raises:
            PromptBankError: the store does not say which version is in use.
        """
        newest = self._number()
        oldest = 1 if most is None else max(newest - most + 1, 1)
        return tuple(self._read_or_note(number) for number in range(newest, oldest - 1, -1))

    def add(
        self,
        label: str,
        pictures: Sequence[MarkedImage],
        by: str,
        note: str,
        lineage: Mapping[str, str],
        checked: int | None = None,
    ) -> PromptSet:
        """Add marked images to a class, or make the class.

        Args:
            label: name of the class; letters, digits, spaces and `_-./`, at most 80.
            checked: the version they were checked with; another may not be in use now. None = any may.

        Raises:
            DataError: the name, an image or a mark cannot be used, a mark is there already, or the class
                would have negatives alone; then nothing is written.
            PromptBankError: the store is damaged or cannot be written, or is not at version `checked`.
        """
        checked_label(label)
        if not pictures:
            raise DataError(f"{label}: no image to add; mark at least one")
        new = [StoredPrompt.of(picture) for picture in pictures]
        with self._locked(checked) as before:
            own = before.classes.get(label, ())
            if all(prompt.negative for prompt in (*own, *new)):
                raise DataError(f"{label}: no image shows the defect yet; mark it before what it is not")
            check_new(own, new)
            for prompt, picture in zip(new, pictures, strict=True):
                self._keep(prompt.picture, picture.data)
            calibrations = {name: each for name, each in before.calibrations.items() if name != label}
            classes = {**before.classes, label: (*own, *new)}
            return self._write(replace(before, calibrations=calibrations), classes, by, note, lineage)

    def calibrate(
        self, bank: "PromptBank", by: str, note: str, lineage: Mapping[str, str], checked: int
    ) -> PromptSet:
        """Keep what the scores of a bank of version `checked` mean.

        A class's calibration holds for the bank's model, until the class gets other prompts.

        Raises:
            PromptBankError: the store is damaged or cannot be written, or is not at version `checked`.
        """
        with self._locked(checked) as before:
            own = zip(bank.class_names, bank.calibrations, strict=True)
            calibrations = {name: (bank.fingerprint, calibration) for name, calibration in own}
            calibrated = replace(before, calibrations=before.calibrations | calibrations)
            return self._write(calibrated, before.classes, by, note, lineage)

    def remove(self, label: str, by: str, note: str) -> PromptSet:
        """Take a class out; its images stay, for the versions before.

        Raises:
            PromptBankError: there is no such class, or the store is damaged or cannot be written.
        """
        with self._locked() as before:
            classes = {name: prompts for name, prompts in before.classes.items() if name != label}
            if len(classes) == len(before.classes):
                known = ", ".join(classes) or "no class"
                raise PromptBankError(f"{self.folder}: no class {label[:80]!r} to remove; it has {known}")
            return self._write(before, classes, by, note, {})

    def revert(self, version: int | None, by: str) -> PromptSet:
        """A new version with the classes of an earlier one.

        Args:
            version: the earlier one; None = the one before the current.

        Raises:
            PromptBankError: there is no such version, an image of it is damaged or gone, or the store
                is damaged or cannot be written.
        """
        with self._locked() as before:
            if version is None and before.parent is None:
                raise PromptBankError(f"{self.folder}: nothing to revert; nothing was enrolled yet")
            earlier = self.version(before.version - 1 if version is None else version)
            self._check_images(earlier)
            as_then = replace(before, calibrations=earlier.calibrations)
            return self._write(as_then, earlier.classes, by, f"as version {earlier.version}", {})

    def annotations(self, version: PromptSet) -> Annotations:
        """The marks of a version on the images kept; every image's hash is checked.

        Raises:
            PromptBankError: an image is gone or was changed, or a mark does not fit its image.
        """
        self._check_images(version)
        return as_annotations(version.classes, self.images)

    def bank(self, detector: "UniSpector") -> "PromptBank | None":
        """The encoded prompts of the current version; None without a class.

        They are encoded once for a model, and read from the store after that. Banks of other versions go:
        who wants one makes it again.

        Raises:
            PromptBankError: an image is gone or was changed, or a file of the store is damaged.
        """
        now = self.current()
        if not now.classes:
            return None
        from unispector.inference.prompt_bank import PromptBank

        file = self.folder / "banks" / f"{now.digest[:12]}-{detector.fingerprint[:12]}.safetensors"
        digest = file.with_suffix(".sha256")
        # A damaged or foreign file says nothing: the images are what counts.
        with suppress(PromptBankError, OSError, UnicodeDecodeError):
            if hashlib.sha256(file.read_bytes()).hexdigest() == digest.read_text(encoding="utf-8"):
                bank = PromptBank.load(file)
                if bank.fingerprint == detector.fingerprint and bank.class_names == tuple(now.classes):
                    return bank.calibrated(now.calibrations_of(detector.fingerprint))
        bank = detector.encode_instances(self.annotations(now), self.images, "mask").bank()
        negatives = [
            prompt.as_prompt(self.images, label)
            for label, prompts in now.classes.items()
            for prompt in prompts
            if prompt.negative
        ]
        bank = detector.with_negatives(bank, negatives)
        with suppress(OSError):  # in a store that may only be read, the bank is made every time
            bank.save(file)
            atomic_write_text(digest, hashlib.sha256(file.read_bytes()).hexdigest())
            for old in file.parent.glob("[!.]*"):  # with a dot in front: what another process writes just now
                if not old.name.startswith(now.digest[:12]):
                    old.unlink(missing_ok=True)
        return bank.calibrated(now.calibrations_of(detector.fingerprint))

    @property
    def images(self) -> Path:
        """The folder of the images kept, which `annotations` names."""
        return self.folder / "pictures"

    @contextmanager
    def _locked(self, checked: int | None = None) -> Iterator[PromptSet]:
        """The current version, `checked` where one is named, which nobody else changes meanwhile."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with held(self.folder / ".lock", LOCK_SECONDS):
                for own in (self.folder, self.folder / "versions", self.images):
                    remove_leftovers(own, age=0, stem=r"CURRENT|\d{6}|[0-9a-f]{64}")
                pointer = self.folder / "CURRENT"
                if not pointer.exists() and not (self.folder / "versions").exists():
                    atomic_write_text(pointer, "0\n")
                now = self.current()
                if checked not in (None, now.version):
                    raise PromptBankError(
                        f"{self.folder}: version {checked} was checked, but version {now.version} is in use "
                        "by now; start again"
                    )
                yield now
        except OSError as error:
            why = f"cannot be written ({error.strerror}); check permissions, space and other programs"
            raise PromptBankError(f"{error.filename or self.folder}: {why}") from error

    def _write(
        self,
        before: PromptSet,
        classes: dict[str, tuple[StoredPrompt, ...]],
        by: str,
        note: str,
        lineage: Mapping[str, str],
    ) -> PromptSet:
        number = before.version + 1
        time = datetime.now(UTC).isoformat(timespec="seconds")
        known = {one_line(key): one_line(value) for key, value in lineage.items()}
        kept = {name: each for name, each in before.calibrations.items() if name in classes}
        new = PromptSet(number, before.version, time, one_line(by), one_line(note), classes, known, kept)
        content, file = new.as_dict(), self._file(number)
        if file.exists():  # of a killed writer, or of a newer version than the number in CURRENT
            file.replace(file.with_suffix(f".{_hash_of(file)[:12]}"))
        atomic_write_json(file, {"format": FORMAT, "sha256": _digest(content), **content})
        atomic_write_text(self.folder / "CURRENT", f"{number}\n")
        return new

    def _file(self, number: int) -> Path:
        return self.folder / "versions" / f"{number:06d}.json"

    def _number(self) -> int:
        file = self.folder / "CURRENT"
        used = (self.folder / "versions").exists()  # asked first: a writer makes it after CURRENT
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError) and not used:
                return 0
            raise PromptBankError(f"{file}: gone or damaged; {_NEWEST}") from error
        number = int(text) if text.isdecimal() and len(text) < 10 else -1
        near = [self._file(number + by).exists() for by in (-1, 0, 2)]  # 1 may be of a killed writer
        if number < 0 or near[2] or (number > 1 and not any(near)):
            raise PromptBankError(f"{file}: not the number of the newest version; {_NEWEST}")
        return number

    def _read_or_note(self, number: int) -> PromptSet:
        try:
            return self._read(number)
        except PromptBankError as error:
            return PromptSet(number, number - 1, note=str(error).removeprefix(f"{self.folder}/"))

    def _read(self, number: int, remedy: str = _MEND) -> PromptSet:
        if number == 0:
            return PromptSet()
        file = self._file(number)
        try:
            content = parse_json(file.read_text(encoding="utf-8"))
            kind, digest = content.pop("format"), content.pop("sha256")
            if kind not in READ or digest != _digest(content) or content["version"] != number:
                raise ValueError("changed")
            return PromptSet.from_dict(content)
        except FileNotFoundError as error:
            raise PromptBankError(f"{file}: gone; {remedy}") from error
        except _NOT_A_VERSION as error:
            raise PromptBankError(f"{file}: damaged; {remedy}") from error

    def _keep(self, name: str, data: bytes) -> None:
        file = self.images / name
        if not file.is_file() or _hash_of(file) != name.partition(".")[0]:
            atomic_write_bytes(file, data)

    def _check_images(self, version: PromptSet) -> None:
        for name in sorted(version.pictures):
            file = self.images / name
            try:
                digest = _hash_of(file)
            except OSError as error:
                raise PromptBankError(f"{file}: cannot be read ({error.strerror}); {_MEND}") from error
            if digest != name.partition(".")[0]:
                raise PromptBankError(f"{file}: changed since it was enrolled; {_MEND}")


def _plain(classes: Mapping[str, Sequence[StoredPrompt]]) -> dict[str, list[dict[str, Any]]]:
    return {label: [vars(prompt) for prompt in prompts] for label, prompts in classes.items()}


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
