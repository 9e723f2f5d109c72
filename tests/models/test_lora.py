import torch

from medssl.models.lora import add_adapters, merged
from medssl.models.vit import ViT


def adapted(mlp: str) -> ViT:
    torch.manual_seed(0)
    vit = ViT((4, 4), width=16, depth=2, heads=2, mlp=mlp)  # type: ignore[arg-type]
    add_adapters(vit, rank=2, alpha=4.0, generator=torch.Generator().manual_seed(0))
    return vit.eval()


def test_attention_and_mlps_get_adapters_and_the_first_layer_none() -> None:
    vit = ViT((4, 4), width=16, depth=1, heads=2)
    names = add_adapters(vit, rank=2, alpha=4.0, generator=torch.Generator())
    assert names == ["blocks.0.qkv", "blocks.0.project", "blocks.0.mlp.0", "blocks.0.mlp.2"]


def test_a_network_with_fresh_adapters_computes_what_it_did() -> None:
    torch.manual_seed(0)
    plain, image = ViT((4, 4), width=16, depth=2, heads=2).eval(), torch.randn(1, 1, 8, 8)
    assert adapted("gelu")(image).equal(plain(image))


def test_merged_weights_compute_what_the_adapters_did() -> None:
    for mlp in ("gelu", "swiglu"):
        vit, image = adapted(mlp), torch.randn(1, 1, 8, 8)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in vit.named_parameters():
            if name.endswith(".up"):
                parameter.data.normal_(generator=generator)
        plain = ViT((4, 4), width=16, depth=2, heads=2, mlp=mlp).eval()  # type: ignore[arg-type]
        plain.load_state_dict(merged(vit.state_dict(), rank=2, alpha=4.0))
        assert torch.allclose(plain(image), vit(image), atol=1e-5)


def test_the_difference_is_the_formula_of_the_paper() -> None:
    vit = adapted("gelu")
    vit.state_dict()["blocks.0.project.parametrizations.weight.0.up"].fill_(0.5)
    weights = vit.state_dict()
    up, down = (weights[f"blocks.0.project.parametrizations.weight.0.{part}"] for part in ("up", "down"))
    original = weights["blocks.0.project.parametrizations.weight.original"]
    slow = torch.stack([original[row] + 4.0 / 2 * sum(up[row, r] * down[r] for r in range(2)) for row in range(16)])
    assert torch.allclose(merged(weights, rank=2, alpha=4.0)["blocks.0.project.weight"], slow, atol=1e-6)
