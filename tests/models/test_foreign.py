import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import MaskedAutoEncoderViT, SwinUNETR
from monai.networks.nets import ViT as MonaiViT
from safetensors.torch import save_file
from torch import Tensor, nn

from medssl.errors import BundleError, ConfigError
from medssl.models.foreign import inflated, load_foreign, pretrained, pretrained_vit, read_checkpoint
from medssl.models.monai_encoder import MonaiEncoder
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.vit import ViT

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # monai's sine-cosine positions

SIZES = {"width": 24, "depth": 2, "heads": 2}
MONAI = {"in_channels": 1, "patch_size": 4, "hidden_size": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}


def shaken(module: nn.Module) -> nn.Module:
    """Every parameter different, as after training: no zero bias, no unit weight, no zero token hides a mistake."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


@pytest.mark.parametrize(
    ("projection", "positions", "axes"), [("conv", "learnable", 3), ("conv", "learnable", 2), ("perceptron", "sincos", 3)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_the_vit_of_monai_gives_the_same_features_here(tmp_path: Path, projection: str, positions: str, axes: int, bias: bool) -> None:
    size = (8, 12, 4)[:axes]
    theirs = shaken(
        MonaiViT(img_size=size, mlp_dim=40, proj_type=projection, pos_embed_type=positions, spatial_dims=axes, qkv_bias=bias, **MONAI)
    )
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}}, tmp_path / "vit.pt")
    grid = [side // 4 for side in size]
    ours = ViT((4,) * axes, positions="learned", position_grid=grid, mlp_width=40, qkv_bias=bias, **SIZES).eval()
    report = load_foreign(ours, tmp_path / "vit.pt", "monai_vit")
    assert (report.share, report.missing, report.unexpected) == (1, (), ())
    images = torch.randn(2, 1, *size)
    torch.testing.assert_close(ours(images), theirs(images)[0], atol=1e-5, rtol=1e-5)


def test_the_encoder_of_monais_masked_autoencoder_gives_the_same_features_here(tmp_path: Path) -> None:
    theirs = shaken(MaskedAutoEncoderViT(img_size=(8, 8, 8), mlp_dim=32, decoder_hidden_size=12, decoder_num_heads=2, **MONAI))
    torch.save(theirs.state_dict(), tmp_path / "mae.pt")
    ours = ViT((4, 4, 4), positions="learned", position_grid=(2, 2, 2), mlp_width=32, qkv_bias=False, registers=1, **SIZES).eval()
    assert load_foreign(ours, tmp_path / "mae.pt", "monai_vit").share == 1
    images = torch.randn(2, 1, 8, 8, 8)
    tokens = theirs.patch_embedding(images)
    expected = theirs.blocks(torch.cat([theirs.cls_token.expand(2, -1, -1), tokens], dim=1))[:, 1:]
    torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-5)


class FacebookBlock(nn.Module):
    """A block with the names of facebookresearch/mae."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / (d // self.heads) ** 0.5).softmax(dim=-1)
        x = x + self.attn["proj"]((weights @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class FacebookMae(nn.Module):
    """The encoder with the names of facebookresearch/mae, on pictures with rows first."""

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, 24, 4, stride=4)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 24))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1] + 1, 24))
        self.blocks = nn.ModuleList(FacebookBlock(24, 2) for _ in range(2))
        self.norm = nn.LayerNorm(24, eps=1e-6)
        self.decoder_embed = nn.Linear(24, 8)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 8))

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.patch_embed["proj"](pictures).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:].transpose(1, 2).unflatten(2, (pictures.shape[2] // 4, -1))


def vit_for_mae(**options: object) -> ViT:
    settings = {"positions": "learned", "position_grid": (4, 4), "registers": 1, "norm_eps": 1e-6, **SIZES, **options}
    return ViT((4, 4), **settings).eval()  # type: ignore[arg-type]


def as_array(picture: Tensor) -> Tensor:
    """A picture as medssl keeps it: I to the left, J upwards."""
    return picture.mT.flip(-1, -2)


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_mae_of_facebook_gives_the_same_features_here(tmp_path: Path, wrapped: bool) -> None:
    theirs = shaken(FacebookMae(1, (4, 4)))
    state = theirs.state_dict()
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1), "loss": np.float64(0.5)} if wrapped else state, tmp_path / "mae.pth")
    ours = vit_for_mae()
    report = load_foreign(ours, tmp_path / "mae.pth", "mae")
    assert (report.share, report.missing, report.unexpected) == (1, (), ())
    pictures = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(ours.dense(as_array(pictures)), as_array(theirs(pictures)), atol=1e-5, rtol=1e-5)


def test_weights_of_a_colour_mae_serve_one_grey_channel_and_several(tmp_path: Path) -> None:
    theirs = shaken(FacebookMae(3, (4, 4)))
    torch.save(theirs.state_dict(), tmp_path / "mae.pth")
    grey = torch.randn(2, 1, 16, 16)
    for channels in (1, 5):
        ours = vit_for_mae(in_channels=channels)
        assert "embed.weight" in load_foreign(ours, tmp_path / "mae.pth", "mae").reshaped
        features = ours.dense(as_array(grey).expand(-1, channels, -1, -1))
        torch.testing.assert_close(features, as_array(theirs(grey.expand(-1, 3, -1, -1))), atol=1e-5, rtol=1e-4)


def test_positions_are_interpolated_for_another_grid(tmp_path: Path) -> None:
    theirs = shaken(FacebookMae(1, (4, 4)))
    torch.save(theirs.state_dict(), tmp_path / "mae.pth")
    ours = vit_for_mae(position_grid=(2, 4))
    assert "position_table" in load_foreign(ours, tmp_path / "mae.pth", "mae").reshaped
    places = theirs.pos_embed[0, 1:].detach().view(4, 4, 24)  # rows, columns
    mean = (places[3, 3] + places[3, 2]) / 2  # the two columns on the right of the lowest row
    torch.testing.assert_close(ours.position_table[0], mean)  # type: ignore[index]


class NnunetBlock(nn.Module):
    """A residual block with the names of dynamic-network-architectures, convolutions named twice as there."""

    def __init__(self, before: int, after: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.conv2 = nnunet_conv(before, after, 3, stride), nnunet_conv(after, after, 3, (1,) * len(stride))
        parts: list[nn.Module] = [nn.AvgPool3d(stride, stride)] if max(stride) > 1 else []
        if before != after:
            parts.append(nnunet_conv(before, after, 1, (1,) * len(stride), bias=False))
        self.skip = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        skip = x
        for part in self.skip:
            skip = part(skip) if isinstance(part, nn.AvgPool3d) else part["all_modules"](skip)
        x = nn.functional.leaky_relu(self.conv1["all_modules"](x), 0.01)  # type: ignore[operator]
        return nn.functional.leaky_relu(self.conv2["all_modules"](x) + skip, 0.01)  # type: ignore[operator]


def nnunet_conv(before: int, after: int, kernel: int, stride: tuple[int, ...], *, bias: bool = True) -> nn.ModuleDict:
    conv = nn.Conv3d(before, after, kernel, stride=stride, padding=kernel // 2, bias=bias)
    norm = nn.InstanceNorm3d(after, affine=True)
    return nn.ModuleDict({"conv": conv, "norm": norm, "all_modules": nn.Sequential(conv, norm)})


class Nnunet(nn.Module):
    """Encoder and a part of the decoder of a residual-encoder U-Net, on (K, J, I)."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.ModuleDict({"convs": nn.ModuleList([nnunet_conv(1, 4, 3, (1, 1, 1))])})
        stages = [
            nn.ModuleDict({"blocks": nn.ModuleList([NnunetBlock(4, 4, (1, 1, 1))])}),
            nn.ModuleDict({"blocks": nn.ModuleList([NnunetBlock(4, 6, (1, 2, 2)), NnunetBlock(6, 6, (1, 1, 1))])}),
            nn.ModuleDict({"blocks": nn.ModuleList([NnunetBlock(6, 6, (2, 2, 2))])}),
        ]
        self.encoder = nn.ModuleDict({"stem": stem, "stages": nn.ModuleList(stages)})
        self.decoder = nn.ModuleDict({"encoder": self.encoder, "seg_layers": nn.ModuleList([nn.Conv3d(4, 2, 1)])})

    def forward(self, x: Tensor) -> list[Tensor]:
        x = nn.functional.leaky_relu(self.encoder["stem"]["convs"][0]["all_modules"](x), 0.01)  # type: ignore[index, operator]
        maps = []
        for stage in self.encoder["stages"]:  # type: ignore[union-attr]
            for block in stage["blocks"]:  # type: ignore[index]
                x = block(x)
            maps.append(x)
        return maps


def test_the_residual_encoder_of_nnunet_gives_the_same_features_here(tmp_path: Path) -> None:
    theirs = shaken(Nnunet())
    checkpoint = {"network_weights": theirs.state_dict(), "current_epoch": 3, "_best_ema": np.float64(0.8), "logging": [np.float32(1)]}
    torch.save(checkpoint, tmp_path / "checkpoint_final.pth")
    strides = ((1, 1, 1), (2, 2, 1), (2, 2, 2))
    ours = ResidualEncoder(stage_widths=(4, 6, 6), stage_blocks=(1, 2, 1), stage_strides=strides).eval()
    report = load_foreign(ours, tmp_path / "checkpoint_final.pth", "nnunet")
    assert (report.share, report.missing, report.unexpected) == (1, (), ())
    images = torch.randn(2, 1, 16, 12, 8)
    for one, other in zip(ours.pyramid(images), theirs(images.permute(0, 1, 4, 3, 2)), strict=True):
        torch.testing.assert_close(one, other.permute(0, 1, 4, 3, 2), atol=1e-4, rtol=1e-4)


SWIN = {"in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 2}


@pytest.mark.parametrize("form", ["whole network", "encoder of 2022"])
def test_swinunetr_gives_the_same_features_here(tmp_path: Path, form: str) -> None:
    theirs = shaken(SwinUNETR(**SWIN))  # type: ignore[arg-type]
    state = theirs.state_dict()
    if form == "encoder of 2022":
        swin = theirs.swinViT.state_dict()
        state = {f"module.{name}".replace("mlp.linear", "mlp.fc"): tensor for name, tensor in swin.items()}
        state["module.rotation_head.weight"] = torch.zeros(4, 8)
    torch.save({"state_dict": state}, tmp_path / "swin.pt")
    ours = MonaiEncoder("monai.networks.nets.SwinUNETR", SWIN, crop=(32, 32, 32), features="swinViT").eval()
    report = load_foreign(ours, tmp_path / "swin.pt", "monai_swin")
    assert (report.share, report.missing, report.unexpected) == (1, (), ())
    images = torch.randn(1, 1, 32, 32, 32)
    for one, other in zip(ours.pyramid(images), theirs.swinViT(images), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_equal_channels_give_what_one_gave() -> None:
    weight, image = torch.randn(4, 1, 3, 3), torch.randn(2, 1, 8, 8)
    conv = nn.functional.conv2d
    torch.testing.assert_close(conv(image.expand(-1, 5, -1, -1), inflated(weight, 5)), conv(image, weight), atol=1e-5, rtol=1e-5)


def test_weights_that_fit_in_part_change_nothing_unless_asked_for(tmp_path: Path) -> None:
    state = shaken(FacebookMae(1, (4, 4))).state_dict()
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("blocks.1.")}, tmp_path / "half.safetensors")
    ours = vit_for_mae()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(ConfigError, match=r"in part only.*blocks.1.norm_attention.weight.*and 7 more"):
        load_foreign(ours, tmp_path / "half.safetensors", "mae")
    assert all(tensor.equal(before[name]) for name, tensor in ours.state_dict().items())
    report = load_foreign(ours, tmp_path / "half.safetensors", "mae", allow_partial=True)
    elements = sum(tensor.numel() for tensor in before.values())
    assert report.share == pytest.approx(1 - sum(before[name].numel() for name in report.missing) / elements)
    assert len(report.missing) == 12
    assert ours.blocks[0].qkv.weight.equal(state["blocks.0.attn.qkv.weight"])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "sincos", "position_grid": None}, "positions that this encoder cannot hold"),
        ({"depth": 3}, "in part only"),
        ({"mlp_width": 95}, "in part only"),
        ({"width": 32}, "in part only"),
    ],
)
def test_an_encoder_of_another_shape_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    torch.save(shaken(FacebookMae(1, (4, 4))).state_dict(), tmp_path / "mae.pth")
    with pytest.raises(ConfigError, match=message):
        load_foreign(vit_for_mae(**options), tmp_path / "mae.pth", "mae")


def test_a_first_layer_that_does_not_fit_is_refused_however_small_it_is(tmp_path: Path) -> None:
    torch.save({**shaken(FacebookMae(1, (4, 4))).state_dict(), "patch_embed.proj.weight": torch.zeros(24, 1, 2, 2)}, tmp_path / "mae.pth")
    with pytest.raises(ConfigError, match=r"9\d.*missing: embed.weight; unexpected: embed.weight"):
        load_foreign(vit_for_mae(), tmp_path / "mae.pth", "mae")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("touched"),)  # type: ignore[return-value]


def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "extra": Harmful()}, "harmful.pth")
    with pytest.raises(BundleError, match="unsafe_checkpoint") as caught:
        read_checkpoint(Path("harmful.pth"))
    assert caught.value.exit_code == 4
    assert not Path("touched").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    torch.save({"w": torch.zeros(100)}, tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    with pytest.raises(BundleError):
        read_checkpoint(tmp_path / name)


def test_a_file_without_tensors_or_no_file_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(BundleError, match="holds no tensors"):
        read_checkpoint(tmp_path / "empty.pth")
    with pytest.raises(ConfigError, match="is no file"):
        read_checkpoint(tmp_path / "absent.pth")


def test_a_configuration_gets_an_encoder_with_weights_in_it(tmp_path: Path) -> None:
    state = shaken(FacebookMae(1, (4, 4))).state_dict()
    torch.save(state, tmp_path / "mae.pth")
    for function in (pretrained, pretrained_vit):
        encoder = function(vit_for_mae(), tmp_path / "mae.pth", "mae")
        assert encoder.state_dict()["norm.weight"].equal(state["norm.weight"])
