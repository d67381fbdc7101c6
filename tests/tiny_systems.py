"""The systems of the comparison at their smallest, with random weights."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from tiny import tiny_config, tiny_network
from unispector.config import Config, DataConfig, TrainConfig
from unispector.modeling.saved_model import save_model
from unispector.systems.efficient_ad import TEACHER_CHANNELS
from unispector.systems.yolo import library

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_closed(folder, classes, sets):
    """A closed set as training writes it."""
    model = tiny_config().as_rival("maskdino").model_copy(update={"classes": classes})
    config = Config(data=DataConfig(sets=sets), model=model, train=TrainConfig(views=0))
    network = tiny_network(model, 3)
    save_model(folder, network, config, {"made by": "a test"})
    return network.prompt_encoder.table.weight.detach()


def save_resnet(folder):
    """The smallest ResNet of timm, with random weights."""
    torch.manual_seed(0)
    save_for_hf(timm.create_model("resnet10t", num_classes=3), folder, safe_serialization=True)
    return folder


def save_grounding_dino(folder):
    """The smallest GroundingDINO, with random weights, and a tokenizer of letters."""
    transformers = pytest.importorskip("transformers", reason="pip install 'unispector[systems]'")
    words = ["black", "hole", "scratch", "crack", "on", "edge", "bright", "dark", "half"]
    vocabulary = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [form + letter for letter in "abcdefghijklmnopqrstuvwxyz" for form in ("", "##")]
    vocabulary += words + letters
    vocabulary += [f"[more{i}]" for i in range(1012 - len(vocabulary))] + ["."]
    vocabulary += [f"[most{i}]" for i in range(1029 - len(vocabulary))] + ["?"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(1)
    swin = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        out_indices=[2, 3, 4],
        window_size=2,
    )
    bert = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    config = transformers.GroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=30,
        max_text_len=32,
        disable_custom_kernels=True,
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    return folder


def tiny_yolo(name, folder):
    """A small architecture file of the kind that ultralytics ships."""
    from ultralytics.utils import YAML
    from ultralytics.utils.checks import check_yaml

    path = folder / name
    YAML.save(path, YAML.load(check_yaml(name.replace("n-", "-"))) | {"scales": {"n": [0.33, 0.0625, 1024]}})
    return str(path)


def loud_yolo(path, kind, folder):
    """A checkpoint of that architecture whose scores are high enough to be seen."""
    network = library.load_network(path, kind).cpu()
    head = network.model[-1]
    with torch.no_grad():
        for branch in getattr(head, "cv3", ()) if kind == "SegmentationModel" else head.cv4:
            (branch[-1] if kind == "SegmentationModel" else branch).bias.fill_(-1.0)
    file = folder / f"{kind}.pt"
    torch.save({"model": network}, file)
    return str(file)


def save_yolo_world(folder):
    """A checkpoint, and beside it a text encoder that spells; the checkpoint's file."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    vocabulary = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(vocabulary) - 2, len(vocabulary) - 1
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=512,
        bos_token_id=start,
        eos_token_id=end,
    )
    CLIPTextModelWithProjection(config).save_pretrained(folder / "clip")
    (folder / "clip/vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "clip/merges.txt").write_text("#version: 0.2\n")
    network = library.load_network("yolov8n-worldv2.yaml", "WorldModel").cpu()
    with torch.no_grad():
        for branch in network.model[-1].cv4:
            branch.bias.fill_(-1.0)
    torch.save({"model": network}, folder / "world.pt")
    return folder / "world.pt"


def save_teacher(folder):
    """A teacher of EfficientAD with random weights, and pictures for the penalty; the teacher's file."""
    from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork

    torch.manual_seed(0)
    torch.save(SmallPatchDescriptionNetwork(TEACHER_CHANNELS).state_dict(), folder / "teacher_small.pth")
    (folder / "penalty").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"penalty/{number}.png")
    return folder / "teacher_small.pth"
