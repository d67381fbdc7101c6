"""Weights a network starts from: what of a file fits it by name and shape, and the account of it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unispector.errors import CheckpointError
from unispector.modeling.official_weights import map_official, read_checkpoint

PUBLISHED = (".pt", ".pth")  # of torch.save
FILES = (".safetensors", *PUBLISHED)


@dataclass(frozen=True)
class WeightReport:
    """The tensors a file has for a network."""

    loaded: tuple[str, ...]  # tensors of the network that take the file's values
    unused: dict[str, str]  # tensors of the file the network has no use for, and why
    new: tuple[str, ...]  # tensors of the network the file lacks; they keep the values they have

    def line(self, origin: str) -> str:
        """One line for a log: counts, and which modules are new or not used.

        Args:
            origin: what the weights come from, for the reader.
        """
        total = len(self.loaded) + len(self.new)
        parts = [f"loaded {len(self.loaded)} of {total} tensors from {origin}"]
        for title, names in (("new", self.new), ("not used", tuple(self.unused))):
            if names:
                parts.append(f"{title}: {', '.join(modules(names, self.loaded))}")
        return "; ".join(parts)


def modules(names: Iterable[str], others: Iterable[str] = ()) -> dict[str, int]:
    """The modules that tensors belong to, with their numbers, in order.

    Args:
        names: tensors, `module.part.rest`.
        others: tensors that are not meant; a module without any of them is named as a whole, else
            its parts are.
    """
    shared = {name.partition(".")[0] for name in others}
    return Counter(
        ".".join(name.split(".")[: 2 if name.partition(".")[0] in shared else 1]) for name in names
    )


def match_weights(own: Mapping[str, Tensor], given: Mapping[str, Tensor], origin: str) -> WeightReport:
    """Compare a file's tensors with a network's by name and shape.

    Args:
        own: state of the network.
        given: tensors of the file.
        origin: what they come from, for the message.

    Raises:
        CheckpointError: a tensor has the network's name but another shape, holds integers or a number that is
            not finite, or not one fits.
    """
    loaded = tuple(name for name in own if name in given)
    wrong = [name for name in loaded if own[name].shape != given[name].shape]
    if wrong:
        there, here = list(given[wrong[0]].shape), list(own[wrong[0]].shape)
        raise CheckpointError(
            f"{origin}: {wrong[0]} has another shape, {there} in place of {here} "
            f"({len(wrong)} such tensors); choose the sizes of the `model` section by the weights"
        )
    for name in loaded:
        if not given[name].is_floating_point() and own[name].is_floating_point():
            raise CheckpointError(
                f"{origin}: {name} is of {given[name].dtype}, no weights; bring another file"
            )
        if not given[name].isfinite().all():
            raise CheckpointError(f"{origin}: {name} has a number that is not finite; bring another file")
    if not loaded:
        example = next(iter(given), "none")
        raise CheckpointError(
            f"{origin}: none of its tensors ({example}, ...) is one of this network; bring published "
            "checkpoints in with `unispector weights convert`"
        )
    return WeightReport(
        loaded=loaded,
        unused={name: "not in this network" for name in given if name not in own},
        # How many batches a norm has seen changes nothing, and some formats leave it out.
        new=tuple(name for name in own if name not in given and not name.endswith("num_batches_tracked")),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights under this project's names, or a published checkpoint, renamed.

    Args:
        path: safetensors file, or a `.pt` or `.pth` of a layout that `map_official` knows.

    Raises:
        CheckpointError: it is absent, damaged, or of another format.
    """
    if path.suffix in PUBLISHED:
        return map_official(read_checkpoint(path), str(path)).tensors
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: no readable safetensors weights ({error}); "
            "bring published checkpoints in with `unispector weights convert`"
        ) from error


def widen(model: nn.Module, start: nn.Module) -> None:
    """Give a model the weights of one that has only the first of its backbones.

    Channels of further backbones come after those that both have, and start at zero: the model begins as
    what it starts from, but for the mean similarity, which is now over all levels.

    Args:
        model: changed in place; its `ModelConfig` extends that of `start`.
        start: of the same parts.
    """
    own, known = model.state_dict(), start.state_dict()
    for name, given in known.items():
        place = name if name in own else name.replace("backbone.", "backbone.parts.0.", 1)
        if own[place].shape == given.shape:
            own[place].copy_(given)
        else:
            own[place].zero_()[:, : given.shape[1]] = given
    for name in own:
        # What new levels add to the sum over all.
        if name.startswith("similarity.prior.shared.") and name not in known:
            own[name].zero_()


def load_starting_weights(model: nn.Module, path: Path) -> WeightReport:
    """Load what a file has for a model; the rest of the model keeps its values.

    Args:
        model: changed in place.
        path: as `read_weights`.

    Raises:
        CheckpointError: the file cannot be read, a tensor has another shape than the model's of that
            name, or not one fits.
    """
    return load_tensors(model, read_weights(path), str(path))


def load_tensors(model: nn.Module, given: Mapping[str, Tensor], origin: str) -> WeightReport:
    """Load what tensors fit a model by name and shape; see `match_weights` for the arguments and errors."""
    report = match_weights(model.state_dict(), given, origin)
    model.load_state_dict({name: given[name] for name in report.loaded}, strict=False)
    return report
