"""EfficientAD (arXiv 2303.14535) over anomalib's network, trained for its 70,000 steps of one image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unispector.data.transforms import resize_image
from unispector.errors import CheckpointError
from unispector.modeling.official_weights import read_checkpoint
from unispector.ops.files import list_images, read_image
from unispector.project.progress import progress_bar
from unispector.systems.anomaly import AnomalyDetector, of_anomalib
from unispector.systems.hub import check_finite

STEPS = 70_000
TEACHER_CHANNELS = 384


class EfficientAd(AnomalyDetector):
    """EfficientAD with the published teacher, small or medium."""

    side = 256  # the only one that its autoencoder takes

    def __init__(self, weights: str) -> None:
        """Build it.

        Args:
            weights: anomalib's `pretrained_teacher_small.pth` or `..._medium.pth`. A folder `penalty` beside
                it holds pictures of anything but the product (in the paper ImageNet), on which the student
                must not repeat the teacher.

        Raises:
            CheckpointError: the weights cannot be read.
            DataError: there is no such folder or no image in it.
            ModuleNotFoundError: anomalib is not installed.
        """
        library = of_anomalib("image.efficient_ad.torch_model")
        state = read_checkpoint(Path(weights))
        small = len(state.get("conv1.bias", ())) == 128
        size = library.EfficientAdModelSize.S if small else library.EfficientAdModelSize.M
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = library.EfficientAdModel(TEACHER_CHANNELS, size)
        try:
            network.teacher.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(
                f"{weights}: not a teacher of EfficientAD; take anomalib's pretrained_teacher_small.pth"
            ) from error
        check_finite(network.teacher, weights)
        network.teacher.requires_grad_(False)
        self._penalty = list_images([Path(weights).with_name("penalty")])
        super().__init__(network)

    def _input(self, pixels: np.ndarray) -> Tensor:
        return self._square(pixels).float() / 255

    def _learn(self, paths: Sequence[Path], held: Sequence[Path]) -> None:
        """Train student and autoencoder, then scale the maps by the held-out images (paper, section 3)."""
        network = self._network
        network.mean_std.update(self._teacher_moments(paths))
        learning = [*network.student.parameters(), *network.ae.parameters()]
        optimiser = torch.optim.Adam(learning, 1e-4, weight_decay=1e-5)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, int(0.95 * STEPS)), 0.1)
        network.train()
        with progress_bar("EfficientAD", "step") as show:
            for step in range(STEPS):
                good, other = (files[int(torch.randint(len(files), ()))] for files in (paths, self._penalty))
                losses = network(self._input(read_image(good)), self._penalty_input(read_image(other)))
                optimiser.zero_grad()
                sum(losses).backward()
                optimiser.step()
                schedule.step()
                show(step + 1, STEPS)
        network.eval()
        with torch.no_grad():
            maps = [network.get_maps(self._input(read_image(path))) for path in held]
        for name, each in zip(("st", "ae"), zip(*maps, strict=True), strict=True):
            values = torch.cat(each).flatten().cpu().numpy()
            for bound, share in (("qa", 0.9), ("qb", 0.995)):
                network.quantiles[f"{bound}_{name}"].data.fill_(float(np.quantile(values, share)))

    @torch.no_grad()
    def _teacher_moments(self, paths: Sequence[Path]) -> dict[str, Tensor]:
        """Mean and deviation [1, C, 1, 1] of the teacher's channels on good images."""
        sums = torch.zeros(3, TEACHER_CHANNELS, dtype=torch.float64, device=self._device)
        for path in paths:
            values = self._network.teacher(self._input(read_image(path)))[0].flatten(1).double()
            sums += torch.stack(
                [values.sum(1), values.square().sum(1), torch.full_like(values[:, 0], values.shape[1])]
            )
        mean = sums[0] / sums[2]
        deviation = (sums[1] / sums[2] - mean**2).clamp(min=1e-12).sqrt()
        return {"mean": mean.float().view(1, -1, 1, 1), "std": deviation.float().view(1, -1, 1, 1)}

    def _penalty_input(self, pixels: np.ndarray) -> Tensor:
        """The middle half of a picture at twice the size, grey in 30 % of cases."""
        middle = slice(self.side // 2, self.side // 2 + self.side)
        part = resize_image(pixels, 2 * self.side)[middle, middle]
        if torch.rand(()) < 0.3:
            part = part.mean(2, keepdims=True).repeat(3, 2).astype(np.uint8)
        return self._input(part)
