"""AdamW with the method's parameter groups, and its linear schedule."""

import re

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

# Embeddings of modules that are no `nn.Embedding`. `level_embed` is none of them: the base decays it.
_UNDECAYED = {
    *("relative_position_bias_table", "content", "position", "reference", "token_types"),
    *("sharpness", "marked", "plain"),  # single numbers of attention heads
}
# A network that starts from weights of its own, and a Swin's norms; what is new in a backbone learns fast.
_SLOW = re.compile(r"backbone\.(parts\.\d+\.)?(network|out_norms)\b")
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)


def build_optimiser(
    model: nn.Module, *, learning_rate: float, backbone_rate: float, weight_decay: float
) -> AdamW:
    """Build AdamW.

    Norms, embeddings, relative position biases and single numbers are not decayed; biases of layers are, as
    in the released base. A backbone's network learns at `learning_rate * backbone_rate`. Frozen parameters
    are left out. A group's `rate` says which of the two rates is its own: `learning` or `backbone`.

    Args:
        backbone_rate: factor for a backbone's network.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            plain = isinstance(module, (*_NORMS, nn.Embedding)) or name in _UNDECAYED or not parameter.dim()
            groups.setdefault((_SLOW.match(module_name) is not None, plain), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "rate": "backbone" if backbone else "learning",
                "lr": learning_rate * (backbone_rate if backbone else 1.0),
                "weight_decay": 0.0 if plain else weight_decay,
            }
            for (backbone, plain), parameters in groups.items()
        ],
        fused=True,
    )


def linear_schedule(optimiser: AdamW, *, steps: int, warmup: int, start: int = 0) -> LambdaLR:
    """Rise from a thousandth over `warmup` steps, then fall linearly to 0 at `steps`."""

    def factor(step: int) -> float:
        if step < warmup:
            return 1e-3 + (1 - 1e-3) * step / warmup
        return max(steps - step, 0) / max(steps - warmup, 1)

    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimiser, factor, last_epoch=start - 1)
