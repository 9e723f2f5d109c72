import numpy as np
import pytest
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.detection import Box, averaged, detections, joined, overlap, slice_heights, suppressed
from medssl.models.detector import CentreDetector
from medssl.models.inference import Window
from medssl.models.residual_encoder import ResidualEncoder
from medssl.models.vit import ViT


def small(dims: int, level: int = 1) -> CentreDetector:
    encoder = ResidualEncoder(spatial_dims=dims, in_channels=1, stage_widths=(4, 8, 8), stage_blocks=(1, 1, 1))
    return CentreDetector(encoder, level=level, width=4).eval()


class Bright(CentreDetector):
    """Says that every voxel above 1 is the centre of a lesion of 4 voxels; cells are voxels."""

    def forward(self, images: Tensor) -> Tensor:
        heat = images[:, :1] * 4 - 8
        size = torch.full_like(heat.expand(-1, self.spatial_dims, *heat.shape[2:]), 4.0)
        return torch.cat([heat, size, torch.full_like(size, 0.5)], dim=1)


def bright(dims: int) -> Bright:
    return Bright(small(dims).encoder, width=4).eval()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_maps_lie_on_the_asked_scale(dims: int, level: int) -> None:
    assert small(dims, level)(torch.randn(1, 1, *(8,) * dims)).shape == (1, 1 + 2 * dims, *(8 // 2**level,) * dims)


@pytest.mark.parametrize("encoder", [ViT((4, 4), width=8, depth=1, heads=1), ViT((4, 4, 4), width=8, depth=1, heads=1)])
def test_a_detector_stands_on_any_encoder(encoder: ViT) -> None:
    network = CentreDetector(encoder, level=1, width=4).eval()
    rebuilt = network.architecture().build().eval()
    rebuilt.load_state_dict(network.state_dict())
    images = torch.randn(1, 1, *(8,) * encoder.spatial_dims)
    assert rebuilt(images).equal(network(images))
    assert network(images).shape[2:] == (4,) * encoder.spatial_dims


def test_every_parameter_of_a_coarse_head_has_a_gradient() -> None:
    network = small(2, 2)
    network(torch.randn(1, 1, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_scale_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="between 0 and 2"):
        small(2, 3)


def scan(*places: tuple[int, int, int], shape: tuple[int, int, int] = (20, 18, 12)) -> Tensor:
    image = torch.zeros(1, *shape)
    for place in places:
        image[(0, *place)] = 3.0
    return image


@pytest.mark.parametrize("flips", [False, True])
def test_every_lesion_is_found_once_wherever_windows_meet(flips: bool) -> None:
    places = [(0, 0, 0), (5, 9, 4), (19, 17, 11), (10, 2, 6), (12, 14, 1)]
    found = detections(bright(3), scan(*places), Window((8, 8, 6), flips=flips, foreground=False))
    assert sorted(tuple(map(round, box.centre)) for box in found) == sorted(places)
    assert found[0].size == (4.0, 4.0, 4.0)


def test_a_scan_smaller_than_the_window_keeps_its_places() -> None:
    found = detections(bright(3), scan((2, 3, 1), shape=(5, 6, 3)), Window((8, 8, 8), flips=False, foreground=False))
    assert [box.centre for box in found] == [(2.0, 3.0, 1.0)]


def test_slices_are_joined_into_lesions_of_the_volume() -> None:
    image = scan((5, 9, 4), (5, 9, 5), (6, 9, 6), (15, 3, 8))
    found = detections(bright(2), image, Window((16, 16), flips=False, foreground=False))
    assert sorted((box.centre, box.size) for box in found) == [((5.5, 9.0, 5.0), (5.0, 4.0, 3.0)), ((15.0, 3.0, 8.0), (4.0, 4.0, 1.0))]


def test_boxes_of_the_foreground_lie_where_they_are_in_the_scan() -> None:
    image = torch.zeros(1, 30, 30, 8)
    image[0, 8:22, 8:22, 2:6] = 1.0
    image[0, 15, 14, 3] = 3.0
    found = detections(bright(3), image, Window((8, 8, 4), flips=False))
    assert [box.centre for box in found if box.score > 0.5] == [(15.0, 14.0, 3.0)]


def test_the_mirror_image_says_the_same_of_a_network_that_knows_no_sides() -> None:
    images = torch.rand(1, 1, 8, 8)
    alone, both = (averaged(bright(2), images, Window((8, 8), flips=flips).mirrors) for flips in (False, True))
    torch.testing.assert_close(alone, both)


def mirrored_maps(maps: Tensor, axis: int) -> Tensor:
    """Maps of a detector as the mirror image along an axis would have them."""
    dims = maps.ndim - 2
    flipped = maps.flip(2 + axis)
    flipped[:, 1 + dims + axis] = 1 - flipped[:, 1 + dims + axis]
    return flipped


@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2), ()])
def test_mirror_images_along_the_axes_of_a_window_get_mirrored_maps_and_others_do_not(flips: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network, images, mirrors = small(3), torch.randn(1, 1, 8, 8, 8), Window((8, 8, 8), flips=flips).mirrors
    with torch.inference_mode():
        maps = averaged(network, images, mirrors)
        same = [torch.allclose(averaged(network, images.flip(2 + a), mirrors), mirrored_maps(maps, a), atol=1e-5) for a in range(3)]
    assert same == [axis in flips for axis in range(3)]


def test_a_detector_looks_at_the_mirror_images_of_its_window() -> None:
    class Edge(Bright):
        """Sees only what lies in the lower half of the second axis."""

        def forward(self, images: Tensor) -> Tensor:
            maps = super().forward(images)
            maps[:, 0, :, maps.shape[3] // 2 :] = -20.0
            return maps

    network, image = Edge(small(2).encoder, width=4).eval(), scan((5, 12, 0), shape=(16, 16, 1)) * 20
    flips: tuple[tuple[int, ...], ...] = ((0,), (1,))
    found = [detections(network, image, Window((16, 16), flips=axes, foreground=False)) for axes in flips]
    assert [len(boxes) for boxes in found] == [0, 1]


def test_of_boxes_on_one_lesion_the_best_is_kept() -> None:
    one, again, other = Box((5.0, 5.0), (4.0, 4.0), 0.6), Box((5.5, 5.0), (4.0, 4.0), 0.9), Box((12.0, 5.0), (4.0, 4.0), 0.3)
    assert suppressed([one, again, other]) == [again, other]


def test_the_overlap_of_boxes_is_their_iou() -> None:
    assert overlap(Box((2.0, 2.0), (4.0, 4.0), 1.0), Box((4.0, 2.0), (4.0, 4.0), 1.0)) == pytest.approx(8 / 24)


def test_boxes_two_slices_apart_are_two_lesions() -> None:
    box = Box((5.0, 5.0), (4.0, 4.0), 0.5)
    assert len(joined([[box], [], [box]])) == 2


def test_a_lesion_marks_the_slices_that_it_reaches_into() -> None:
    heights = slice_heights([Box((0.0, 0.0, 3.0), (1.0, 1.0, 3.0), 0.5), Box((0.0, 0.0, 4.0), (1.0, 1.0, 1.0), 0.8)], 6)
    np.testing.assert_allclose(heights, [0, 0, 0.5, 0.5, 0.8, 0])
