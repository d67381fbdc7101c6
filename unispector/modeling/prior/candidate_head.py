"""The candidate head: is it the class, how good is its outline, and where does it really end?

One ranking for candidates of both sources (`candidates.py`). The head looks at each in a window a bit
larger than its box, with the class's match maps, features of the image and of the grey pixels, and lets
the candidates of one class in one image see one another: what is a piece of which, and which one is best,
shows only beside the others.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.modeling.layers import MLP, ChannelNorm, convolution
from unispector.modeling.prior.candidates import FACTS, GROWN, OF_QUERY, SURENESS
from unispector.modeling.prior.similarity_prior import SHARED
from unispector.ops.windows import CROP, GRID, crop, windows
from unispector.prior_structures import Candidates, JudgedCandidates, PriorMaps

SIZES = 4  # numbers that compare a candidate's size with the prompts'
GEOMETRY = 3  # numbers on how two candidates lie
FURTHEST = 2.0  # largest change of a box: of its middle in sides, of its sides as a logarithm
INSIDE = 0.03  # share of a cell from which on it is the part's; a thin part covers little of a large cell
LARGEST = 6.0  # logit of a canvas at most
DOUBT = 0.5  # factor on the logits of other parts within a candidate's window, which count against it
FIRST_SCORE = -2.0  # logit of an untrained score: most candidates are wrong
FIRST_WEIGHTS = {SURENESS: 4.0, OF_QUERY: -2.0, GROWN: -2.0}  # of facts in it: sure parts lead


class CandidateHead(nn.Module):
    """Scores, boxes and masks of candidates."""

    def __init__(self, coarse: int, fine: int, *, width: int, token: int, layers: int = 2) -> None:
        """Build the head.

        Args:
            coarse, fine: channels of `PriorMaps.coarse` and `PriorMaps.fine`.
            width: channels of a window.
            token: channels of a candidate.
            layers: of attention among the candidates of a class in an image.
        """
        super().__init__()
        self.read = convolution(coarse + fine + SHARED + 4, width, kernel=1)
        self.first, self.second = convolution(width, width), convolution(width, width)
        self.shrink = nn.Sequential(nn.Conv2d(width, token, 3, stride=2, padding=1), ChannelNorm(token))
        self.third = convolution(token, token)
        # Untrained, the head ranks parts by how sure and well-defined they are, all else behind them.
        self.plain = nn.Linear(FACTS, 2, bias=False)
        nn.init.zeros_(self.plain.weight)
        for fact, weight in FIRST_WEIGHTS.items():
            nn.init.constant_(self.plain.weight[:, fact], weight)
        # Facts alone rank well and are quickly learned from; what is seen is added to them.
        self.from_facts = MLP((FACTS + SIZES, width, width, 2), zero=True)
        self.token = MLP((2 * token + 2 * width + FACTS + SIZES, token, token))
        self.layers = nn.ModuleList(_SetAttention(token) for _ in range(layers))
        self.norm = nn.LayerNorm(token)
        self.score = MLP((token, token, 2), zero=True)
        nn.init.constant_(self.from_facts.layers[-1].bias, FIRST_SCORE)  # type: ignore[arg-type]
        self.box = MLP((token, token, 4), zero=True)
        self.from_token = nn.Linear(token, width)
        self.grow = convolution(width, width)
        self.up = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
        self.draw = nn.Conv2d(width // 2 + 3, width // 2, 3, padding=1)
        self.change = nn.Conv2d(width // 2, 1, 3, padding=1)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)  # type: ignore[arg-type]

    def forward(
        self, candidates: Candidates, canvases: Tensor, maps: PriorMaps, sizes: Tensor
    ) -> JudgedCandidates:
        """Judge candidates.

        Args:
            candidates: n of R images and C classes.
            canvases: [K, P/2, P/2] logits that the candidates were cut from.
            maps: of the similarity prior.
            sizes: [R, C, 2] mean log of width and height of each class's marks, in shares of the frame.
        """
        side = canvases.shape[-1]
        window = windows(candidates.boxes, side)
        image = candidates.map // (len(maps.coarse.flatten(0, 1)) // len(maps.shared))
        canvas = crop(canvases[:, None], candidates.canvas, window, GRID)[:, 0]
        base = relative_logits(canvas - candidates.cuts[:, None, None], candidates.own)
        likeness = crop(maps.likeness.flatten(0, 1)[:, None], candidates.map, window, GRID)
        seen = torch.cat(
            (
                crop(maps.fine.flatten(0, 1), candidates.map, window, CROP),
                crop(maps.coarse.flatten(0, 1), candidates.map, window, CROP),
                crop(maps.shared, image, window, CROP),
                F.avg_pool2d(
                    torch.cat(
                        (likeness, candidates.own[:, None], base[:, None] / 3, canvas[:, None] / 3), dim=1
                    ),
                    2,
                ),
            ),
            dim=1,
        )
        x = F.relu(self.read(seen.contiguous(memory_format=torch.channels_last)))
        x = F.relu(self.first(x))
        x = F.relu(x + self.second(x))
        small = F.relu(self.shrink(x))
        small = F.relu(small + self.third(small))
        compared = candidates.boxes[:, 2:].clamp(min=1e-3).log() - sizes.flatten(0, 1)[candidates.map]
        size = (compared, compared.abs().sum(1, keepdim=True), compared.sum(1, keepdim=True))
        facts = torch.cat((candidates.facts, *size), dim=1)
        own = F.avg_pool2d(candidates.own[:, None], 2)
        inside, around = _mean(x.float(), own), _mean(x.float(), 1 - own)
        known = (small.amax((2, 3)).float(), small.mean((2, 3)).float(), inside, inside - around, facts)
        token = self._among_others(self.token(torch.cat(known, dim=1)), candidates)
        change = self.box(token).float().clamp(-FURTHEST, FURTHEST)
        middle = candidates.boxes[:, :2] + change[:, :2] * candidates.boxes[:, 2:]
        drawn = F.relu(self.up(F.relu(self.grow(x) + self.from_token(token)[:, :, None, None])))
        drawn = torch.cat((drawn, candidates.own[:, None], base[:, None] / 3, likeness), dim=1)
        return JudgedCandidates(
            candidates=candidates,
            canvases=canvases,
            scores=(self.plain(candidates.facts) + self.from_facts(facts) + self.score(token)).float(),
            boxes=torch.cat((middle, candidates.boxes[:, 2:] * change[:, 2:].exp()), dim=1),
            base=base,
            change=self.change(F.relu(self.draw(drawn)))[:, 0].float(),
        )

    def _among_others(self, tokens: Tensor, candidates: Candidates) -> Tensor:
        """Tokens [n, D] after attention among those of the same class mask."""
        if not len(tokens):
            return tokens
        order = candidates.map.argsort(stable=True)
        counts = torch.unique_consecutive(candidates.map[order], return_counts=True)[1]
        group = torch.arange(len(counts), device=tokens.device).repeat_interleave(counts)
        place = torch.arange(len(order), device=tokens.device) - (counts.cumsum(0) - counts)[group]
        shape = (len(counts), int(counts.max()))
        rows = tokens.new_zeros(*shape, tokens.shape[1])
        rows = rows.index_put((group, place), tokens[order])
        there = torch.zeros(shape, dtype=torch.bool, device=tokens.device)
        there[group, place] = True
        boxes = candidates.boxes.new_zeros(*shape, 4)
        boxes[group, place] = candidates.boxes[order]
        geometry = _overlaps(boxes)
        for layer in self.layers:
            rows = layer(rows, geometry, there)
        return torch.zeros_like(tokens).index_put((order,), self.norm(rows)[group, place].to(tokens.dtype))


class _SetAttention(nn.Module):
    """Self-attention of padded sets with a learned bias on how two members lie; pre-norm."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Linear(GEOMETRY, heads)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feedforward = MLP((width, 2 * width, width))
        nn.init.zeros_(self.bias.weight)
        nn.init.zeros_(self.bias.bias)

    def forward(self, x: Tensor, geometry: Tensor, there: Tensor) -> Tensor:
        """[S, n, D] tokens with [S, n, n, GEOMETRY] and [S, n] bool to [S, n, D]."""
        split = self.joint(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias(geometry).permute(0, 3, 1, 2).masked_fill(~there[:, None, None], -1e4)
        query, key, value = split
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(split.dtype))
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.feedforward(self.between(x))
        return out


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    """[n, D] mean of x [n, D, h, w] where the weight [n, 1, h, w] in [0, 1] says."""
    return (x * weight).sum((2, 3)) / (weight.sum((2, 3)) + 0.1)


def relative_logits(logits: Tensor, own: Tensor) -> Tensor:
    """Logits relative to a candidate's cut, of which other parts' positive ones count against it.

    Args:
        logits: [..., h, w] canvas minus cut.
        own: the same shape, share of a cell that the candidate covers.
    """
    return torch.where((own > INSIDE) | (logits <= 0), logits, -DOUBT * logits).clamp(-LARGEST, LARGEST)


def _overlaps(boxes: Tensor) -> Tensor:
    """IoU of boxes i and j, share of i within j, and of j within i: [S, n, n, 3], of cxcywh [S, n, 4]."""
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    inner = torch.minimum(high[:, :, None], high[:, None]) - torch.maximum(low[:, :, None], low[:, None])
    both = inner.clamp(min=0).prod(-1)
    area = boxes[..., 2:].prod(-1).clamp(min=1e-8)
    one, other = area[:, :, None], area[:, None]
    return torch.stack((both / (one + other - both).clamp(min=1e-8), both / one, both / other), dim=-1)
