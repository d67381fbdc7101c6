"""Published layouts: what their formulas give, written out on their own tensors, is what our modules give."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from published import HEAD, LEVELS, PIXELS, Published, mlp, pair
from unispector.errors import CheckpointError
from unispector.modeling.heads import PredictionHeads
from unispector.modeling.official_weights import map_official
from unispector.modeling.pixel_decoder import PixelDecoder
from unispector.modeling.prompt_encoder import PromptEncoder
from unispector.modeling.transformer_decoder import TransformerDecoder
from unispector.structures import ImageFeatures, VisualPrompts

WIDTH, HEADS, POINTS, HIDDEN, LAYERS, QUERIES = 32, 4, 3, 40, 2, 5
CHANNELS = (6, 8, 10, 12)
SIZES = ((12, 12), (6, 6), (3, 3), (2, 2))  # strides 8, 16, 32, 64


PUBLISHED = Published(WIDTH, HEADS, POINTS, HIDDEN, LAYERS, LAYERS, QUERIES, CHANNELS)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """The small base with random values, the box head and the norm under all their names."""
    shapes = PUBLISHED.shapes() | mlp(f"{HEAD}_bbox_embed", WIDTH, WIDTH, WIDTH, 4)
    shapes |= pair(f"{HEAD}decoder_norm", WIDTH) | {"backbone.patch_embed.proj.bias": (1,)}
    found = {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    for name in list(found):
        if name.startswith(f"{HEAD}_bbox_embed."):
            rest = name.removeprefix(f"{HEAD}_bbox_embed.")
            for index in range(LAYERS):
                found[f"{HEAD}bbox_embed.{index}.{rest}"] = found[name]
                found[f"{HEAD}decoder.bbox_embed.{index}.{rest}"] = found[name]
    for leaf in ("weight", "bias"):
        found[f"{HEAD}decoder.norm.{leaf}"] = found[f"{HEAD}decoder_norm.{leaf}"]
    return found


def fill(module: nn.Module, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Load a module from the tensors under `prefix`, all of it and nothing else."""
    part = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    module.load_state_dict(part)


# The published formulas, on the published tensors.


def apply_linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def apply_norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])


def apply_group_norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"])


def apply_mlp(state: dict[str, Tensor], name: str, x: Tensor, layers: int) -> Tensor:
    for index in range(layers):
        x = apply_linear(state, f"{name}.layers.{index}", x)
        x = x.relu() if index < layers - 1 else x
    return x


def apply_feedforward(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return apply_linear(state, f"{name}.linear2", apply_linear(state, f"{name}.linear1", x).relu())


def apply_attention(
    state: dict[str, Tensor], name: str, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor
) -> Tensor:
    """Multi-head attention of [Q, D] to [K, D]; rows of in_proj are query, key, value."""
    weights, biases = state[f"{name}.in_proj_weight"].chunk(3), state[f"{name}.in_proj_bias"].chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    depth, parts = WIDTH // HEADS, []
    for head in range(HEADS):
        of = slice(head * depth, (head + 1) * depth)
        scores = (q[:, of] @ k[:, of].T / depth**0.5).masked_fill(blocked, -torch.inf)
        parts.append(scores.softmax(1) @ v[:, of])
    return apply_linear(state, f"{name}.out_proj", torch.cat(parts, dim=1))


def apply_deformable(
    state: dict[str, Tensor],
    name: str,
    queries: Tensor,
    references: Tensor,
    memory: Tensor,
    sizes: tuple[tuple[int, int], ...],
) -> Tensor:
    """Deformable attention of [Q, D] to [T, D]: output row ((head * 4 + level) * points + point) * 2 + xy."""
    values = apply_linear(state, f"{name}.value_proj", memory).split([h * w for h, w in sizes])
    offsets = apply_linear(state, f"{name}.sampling_offsets", queries)
    logits = apply_linear(state, f"{name}.attention_weights", queries)
    depth, parts = WIDTH // HEADS, []
    for head in range(HEADS):
        share = LEVELS * POINTS
        weights = logits[:, head * share : (head + 1) * share].softmax(1)
        total = queries.new_zeros(len(queries), depth)
        for level, (height, width) in enumerate(sizes):
            plane = values[level][:, head * depth : (head + 1) * depth].T.view(1, depth, height, width)
            for point in range(POINTS):
                row = ((head * LEVELS + level) * POINTS + point) * 2
                offset = offsets[:, row : row + 2]
                if references.shape[1] == 2:
                    place = references + offset / torch.tensor([width, height])
                else:
                    place = references[:, :2] + offset / POINTS * references[:, 2:] * 0.5
                seen = F.grid_sample(plane, 2 * place.view(1, -1, 1, 2) - 1, align_corners=False)
                total = total + weights[:, level * POINTS + point, None] * seen[0, :, :, 0].T
        parts.append(total)
    return apply_linear(state, f"{name}.output_proj", torch.cat(parts, dim=1))


def sine(position: Tensor, channels: int) -> Tensor:
    """[N] angles to [N, channels], sine and cosine in turn."""
    out = torch.zeros(len(position), channels)
    for place in range(channels // 2):
        angle = position / 10000 ** (2 * place / channels)
        out[:, 2 * place], out[:, 2 * place + 1] = angle.sin(), angle.cos()
    return out


def official_pixels(state: dict[str, Tensor], maps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Levels of strides 8, 16, 32, 64 [h * w, D] and the mask features, of one image."""
    levels, positions, references = [], [], []
    for index, (given, size) in enumerate(zip([*maps[1:], maps[-1]], SIZES, strict=True)):
        name = f"{PIXELS}input_proj.{index}"
        stride, padding = (2, 1) if index == 3 else (1, 0)
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        x = F.conv2d(given, weight, bias, stride=stride, padding=padding)
        levels.append(apply_group_norm(state, f"{name}.1", x)[0].flatten(1).T)
        for row, column in itertools.product(range(size[0]), range(size[1])):
            y, z = (
                (torch.tensor([a + 1.0]) / (n + 1e-6) * 2 * math.pi)
                for a, n in zip((row, column), size, strict=True)
            )
            place = torch.cat((sine(y, WIDTH // 2), sine(z, WIDTH // 2)), dim=1)
            positions.append(place[0] + state[f"{PIXELS}transformer.level_embed"][index])
            references.append(torch.tensor([(column + 0.5) / size[1], (row + 0.5) / size[0]]))
    tokens, position, reference = torch.cat(levels), torch.stack(positions), torch.stack(references)
    for index in range(LAYERS):
        name = f"{PIXELS}transformer.encoder.layers.{index}"
        seen = apply_deformable(state, f"{name}.self_attn", tokens + position, reference, tokens, SIZES)
        tokens = apply_norm(state, f"{name}.norm1", tokens + seen)
        tokens = apply_norm(state, f"{name}.norm2", tokens + apply_feedforward(state, name, tokens))
    parts = list(tokens.split([h * w for h, w in SIZES]))
    fine = parts[0].T.view(1, WIDTH, *SIZES[0])
    lateral = apply_group_norm(
        state, f"{PIXELS}adapter_1.norm", F.conv2d(maps[0], state[f"{PIXELS}adapter_1.weight"])
    )
    x = lateral + F.interpolate(fine, size=lateral.shape[-2:], mode="bilinear", align_corners=False)
    x = F.conv2d(x, state[f"{PIXELS}layer_1.weight"], padding=1)
    x = apply_group_norm(state, f"{PIXELS}layer_1.norm", x).relu()
    name = f"{PIXELS}mask_features"
    return parts, F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])


def official_decoder(
    state: dict[str, Tensor], tokens: Tensor, logits: Tensor, blocked: Tensor, memory: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Normed tokens and boxes of every layer, of one image."""
    results = []
    reference = logits.sigmoid()
    sizes = SIZES[::-1]
    for index in range(LAYERS):
        name = f"{HEAD}decoder.layers.{index}"
        x, y, w, h = (reference * 2 * math.pi).unbind(1)
        place = torch.cat([sine(part, WIDTH // 2) for part in (y, x, w, h)], dim=1)
        position = apply_mlp(state, f"{HEAD}decoder.ref_point_head", place, 2)
        keys = tokens + position
        seen = apply_attention(state, f"{name}.self_attn", keys, keys, tokens, blocked)
        tokens = apply_norm(state, f"{name}.norm2", tokens + seen)
        seen = apply_deformable(state, f"{name}.cross_attn", tokens + position, reference, memory, sizes)
        tokens = apply_norm(state, f"{name}.norm1", tokens + seen)
        tokens = apply_norm(state, f"{name}.norm3", tokens + apply_feedforward(state, name, tokens))
        normed = apply_norm(state, f"{HEAD}decoder.norm", tokens)
        before = torch.logit(reference.clamp(1e-5, 1 - 1e-5))
        box = f"{HEAD}decoder.bbox_embed.{index}"
        results.append((normed, (apply_mlp(state, box, normed, 3) + before).sigmoid()))
        reference = (apply_mlp(state, box, tokens, 3) + before).sigmoid()
    return results


def test_the_pixel_decoder_computes_the_published_one(state):
    module = PixelDecoder(CHANNELS, WIDTH, heads=HEADS, points=POINTS, layers=LAYERS, feedforward=HIDDEN)
    fill(module, "pixel_decoder.", map_official(state, "base").tensors)
    sides = (24, *(size[0] for size in SIZES[:3]))
    maps = [torch.randn(1, c, side, side) for c, side in zip(CHANNELS, sides, strict=True)]
    levels, mask_features = official_pixels(state, maps)
    with torch.no_grad():
        features = module(tuple(maps))
    assert features.level_hw == SIZES[::-1]
    torch.testing.assert_close(features.memory[0], torch.cat(levels[::-1]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features.mask_features, mask_features, atol=1e-4, rtol=1e-4)


def test_decoder_and_heads_compute_the_published_ones(state):
    tensors = map_official(state, "base").tensors
    decoder = TransformerDecoder(WIDTH, heads=HEADS, points=POINTS, layers=LAYERS, feedforward=HIDDEN)
    heads = PredictionHeads(WIDTH, class_bias=False)
    fill(decoder, "decoder.", tensors)
    fill(heads, "heads.", tensors)
    count, prompts = 7, 2
    tokens, logits = torch.randn(count, WIDTH), torch.randn(count, 4)
    memory = torch.randn(sum(h * w for h, w in SIZES), WIDTH)
    mask_features = torch.randn(1, WIDTH, 6, 6)
    blocked = (torch.rand(count, count) < 0.4) & ~torch.eye(count, dtype=torch.bool)
    expected = official_decoder(state, tokens, logits, blocked, memory)
    features = ImageFeatures(memory[None], SIZES[::-1], mask_features)
    with torch.no_grad():
        states = decoder(tokens[None], logits[None], blocked[None], features)
        for own, (normed, boxes) in zip(states, expected, strict=True):
            torch.testing.assert_close(own.tokens[0], normed, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(own.boxes[0], boxes, atol=1e-4, rtol=1e-4)
        own, normed = states[-1], expected[-1][0]
        read = heads(
            decoder.norm, own.tokens[:, :-prompts], own.tokens[:, -prompts:], own.boxes, mask_features
        )
    twice = apply_norm(state, f"{HEAD}decoder_norm", normed) @ state[f"{HEAD}class_embed_openset"]
    torch.testing.assert_close(read.logits[0], twice[:-prompts] @ twice[-prompts:].T, atol=1e-3, rtol=1e-4)
    query = apply_norm(state, f"{HEAD}decoder_norm", normed)[:-prompts]
    masks = apply_mlp(state, f"{HEAD}mask_embed", query, 3) @ mask_features[0].flatten(1)
    torch.testing.assert_close(read.masks[0].flatten(1), masks, atol=1e-3, rtol=1e-4)


def test_the_prompt_encoder_computes_the_published_one(state):
    module = PromptEncoder(
        WIDTH, HEADS, levels=LEVELS, bins=8, spectral=False, visual_aligner=False, log=True
    )
    fill(module, "prompt_encoder.", map_official(state, "base").tensors)
    memory = torch.randn(1, sum(h * w for h, w in SIZES), WIDTH)
    features = ImageFeatures(memory, SIZES[::-1], torch.empty(1, WIDTH, 24, 24))
    region = torch.zeros(1, 96, 96, dtype=torch.bool)
    region[:, :32] = True  # of 96: the first 4 of 12 rows, 2 of 6, 1 of 3; of the last, odd level 1 of 2
    token, place = state[f"{HEAD}content_tokens.weight"], state[f"{HEAD}pos_embed.weight"]
    for index, (part, (h, w)) in enumerate(
        zip(memory[0].split([h * w for h, w in SIZES[::-1]]), SIZES[::-1], strict=True)
    ):
        name = f"{HEAD}project_cross_attention_layers.{index}"
        rows = torch.arange(h * w).view(1, -1) // w
        blocked = rows >= max(h // 3, 1)
        seen = apply_attention(state, f"{name}.multihead_attn", token + place, part, part, blocked)
        token = apply_norm(state, f"{name}.norm", token + seen)
    prompts = VisualPrompts(region, torch.zeros(1).long(), torch.zeros(1).long(), torch.rand(1, 8))
    with torch.no_grad():
        torch.testing.assert_close(module(features, prompts), token, atol=1e-5, rtol=1e-4)


def test_queries_and_what_marks_tokens(state):
    tensors = map_official(state, "base").tensors
    assert torch.equal(tensors["query_selection.content"], state[f"{HEAD}query_feat.weight"])
    assert torch.equal(tensors["query_selection.reference"], state[f"{HEAD}query_embed.weight"])
    label, kind = state[f"{HEAD}label_enc.weight"][0], state[f"{HEAD}pb_embedding.weight"][1]
    assert torch.equal(tensors["token_types"], torch.stack((label, label + kind)))


def test_wrappers_prefixes_and_half_precision_change_nothing(state):
    plain, wrapped = (
        map_official(part, "base")
        for part in (state, {f"module.model.{name}": value.half() for name, value in state.items()})
    )
    assert plain.origin == wrapped.origin
    for name, value in plain.tensors.items():
        assert wrapped.tensors[name].dtype == torch.float32
        torch.testing.assert_close(wrapped.tensors[name], value, atol=2e-3, rtol=1e-3)


def test_copies_of_one_tensor_must_be_equal(state):
    name = f"{HEAD}decoder.bbox_embed.1.layers.2.bias"
    with pytest.raises(CheckpointError, match=r"file\.pth: .*bbox_embed.* differs") as caught:
        map_official({**state, name: state[name] + 1}, "file.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["content_tokens", "pos_embed", "label_enc", "pb_embedding"])
def test_a_table_of_another_length_is_named(state, part):
    name = f"{HEAD}{part}.weight"
    with pytest.raises(CheckpointError, match=rf"{part}.weight has another shape, \[3, {WIDTH}\]"):
        map_official({**state, name: torch.zeros(3, WIDTH)}, "file.pth")


def test_of_another_backbone_only_what_does_not_read_it_is_taken(state):
    """MaskDINO with a ResNet: no learned queries, a label embedding per class, two stages."""
    for name in ("backbone.patch_embed.proj.bias", f"{HEAD}class_embed_openset"):
        del state[name]
    for name in [n for n in state if "project_cross" in n or "query_" in n or "pb_emb" in n or "tokens" in n]:
        del state[name]
    extra = ("backbone.res2.0.conv1.weight", f"{HEAD}class_embed.weight", f"{HEAD}enc_output.bias")
    state |= {name: torch.zeros(3) for name in extra}
    state[f"{HEAD}label_enc.weight"] = torch.zeros(80, WIDTH)
    state["criterion.empty_weight"] = torch.ones(81)
    mapped = map_official(state, "file.pth")
    assert mapped.layout == "maskdino"
    unread = {f"{PIXELS}input_proj.0.0.weight", f"{PIXELS}adapter_1.norm.bias", *extra}
    assert unread <= mapped.unused.keys()
    assert {f"{HEAD}label_enc.weight", "criterion.empty_weight"} <= mapped.unused.keys()
    assert "token_types" not in mapped.tensors
    assert {"decoder.layers.1.cross_norm.bias", "pixel_decoder.layers.0.norm.bias"} <= mapped.tensors.keys()
    assert len(mapped.origin) + len(mapped.unused) == len(state)


def test_unknown_names_are_refused():
    with pytest.raises(CheckpointError, match=r"file.pth: names of no known layout \(conv1.weight"):
        map_official({"conv1.weight": torch.zeros(1)}, "file.pth")
