"""Errors a user can cause and mend: one line that says what is wrong, where, and the remedy."""


class UniSpectorError(Exception):
    """Base of every error the command line prints as one line instead of a traceback."""


class ConfigError(UniSpectorError):
    """A parameter is misspelt, missing or out of range."""


class DataError(UniSpectorError):
    """An image, mask, annotation file or raw folder cannot be used as it is."""


class CheckpointError(UniSpectorError):
    """A saved model is absent, incomplete, or does not fit the code that reads it."""


class PromptBankError(UniSpectorError):
    """A prompt bank is unreadable, lacks a class, or was made by another model."""


class TrainingError(UniSpectorError):
    """Training cannot go on: a loss that is not finite, or an empty training set."""


class RegistryError(UniSpectorError):
    """A registered model version is absent, unusable, or not in a state that allows what was asked."""


class ServiceError(UniSpectorError):
    """The service cannot start or go on as it was asked to."""


class RetrainingError(UniSpectorError):
    """A scheduled retraining cannot go on; what was in production stays."""


def in_one_line(error: Exception) -> str:
    """What an error of another package says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
