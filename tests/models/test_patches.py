import pytest
import torch

from medssl.errors import ConfigError
from medssl.models.patches import grid_of, patchify, sincos_positions, unpatchify


@pytest.mark.parametrize(("shape", "patch"), [((2, 3, 8, 6), (4, 2)), ((1, 2, 4, 6, 8), (2, 3, 4))])
def test_unpatchify_undoes_patchify(shape: tuple[int, ...], patch: tuple[int, ...]) -> None:
    images = torch.randn(shape)
    assert unpatchify(patchify(images, patch), patch, grid_of(shape[2:], patch)).equal(images)


def test_a_patch_holds_its_own_voxels_in_row_major_order() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert patchify(image, (2, 2))[0, 1].tolist() == [2, 3, 6, 7]


def test_a_crop_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of patch"):
        grid_of((10, 8), (4, 4))


@pytest.mark.parametrize("grid", [(3, 5), (2, 3, 4)])
def test_positions_differ_between_all_patches(grid: tuple[int, ...]) -> None:
    positions = sincos_positions(grid, 32)
    assert len(positions.unique(dim=0)) == torch.tensor(grid).prod()
    assert positions.shape[1] == 32
