"""Corresponding points of two views of a scan, checked on scans whose voxels know their place."""

import math

import pytest
import torch
import torch.nn.functional as F

from medssl.views.align import Aligned, aligned, cell_centres, sampled
from medssl.views.augment import Augment, View, augment
from medssl.views.streams import Streams

MOVES = Augment(flip=0.5, rotate_degrees=30, scale=0.2, shift=0.1, gain=0, offset=0, noise=0, blur=0)
SIZES = {2: (24, 16), 3: (16, 12, 8)}


def ramps(size: tuple[int, ...], corner: torch.Tensor) -> torch.Tensor:
    """Crops (B, D, *size) in which channel d of a voxel is its coordinate along axis d of the scan."""
    places = torch.stack(torch.meshgrid(*(torch.arange(length, dtype=torch.float32) for length in size), indexing="ij"))
    return places[None] + corner.view(*corner.shape, *(1 for _ in size))


def unmoved(size: tuple[int, ...], batch: int = 1) -> View:
    dims = len(size)
    return View(torch.zeros(batch, 1, *size), torch.eye(dims, dims + 1).repeat(batch, 1, 1))


def pair(dims: int, settings: Augment, *, seed: int = 0) -> tuple[View, View, Aligned]:
    """Two views of overlapping crops, and the points of the first view's 4-cell grid in the second."""
    size, batch = SIZES[dims], 6
    corners = torch.stack(
        [torch.full((batch, dims), 10.0), torch.randint(7, 14, (batch, dims), generator=torch.Generator().manual_seed(seed)).float()]
    )
    streams = Streams.of(seed, range(batch))
    clear = F.pad(
        torch.ones(batch, 1, *(length - 2 for length in size)), [1, 1] * dims
    )  # the outer voxels repeat where a view looks beyond
    one, other = (augment(ramps(size, corner), settings, streams=streams, masks=clear) for corner in corners)
    return one, other, aligned(one, other, (4,) * dims, corner=corners[0], other_corner=corners[1])


@pytest.mark.parametrize("dims", [2, 3])
def test_corresponding_points_show_the_same_place_of_the_scan(dims: int) -> None:
    one, other, points = pair(dims, MOVES)
    here = sampled(one.images, cell_centres((4,) * dims).expand(6, -1, -1))
    there = sampled(other.images, points.positions)
    assert one.masks is not None
    assert other.masks is not None
    clear = points.known & (sampled(one.masks, cell_centres((4,) * dims).expand(6, -1, -1))[:, :, 0] == 1)
    clear &= sampled(other.masks, points.positions)[:, :, 0] == 1
    assert clear.sum() > 20
    torch.testing.assert_close(here[clear], there[clear], atol=1e-3, rtol=0)


def test_a_shifted_crop_moves_points_by_the_offset() -> None:
    points = aligned(unmoved((8, 8)), unmoved((8, 8)), (4, 4), corner=torch.tensor([[0.0, 0.0]]), other_corner=torch.tensor([[2.0, 0.0]]))
    moved = cell_centres((4, 4)) - torch.tensor([0.0, 0.5])  # 2 of 8 voxels along the first axis, the last coordinate
    assert points.known[0].tolist() == (moved.abs() <= 1).all(dim=1).tolist()
    torch.testing.assert_close(points.positions[0][points.known[0]], moved[points.known[0]])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_flip_turns_the_sign_of_its_axis_alone(dims: int) -> None:
    size = SIZES[dims]
    flipped = unmoved(size)
    flipped.theta[:, 0, 0] = -1  # the last axis of the crop
    points = aligned(unmoved(size), flipped, (4,) * dims, corner=torch.zeros(1, dims), other_corner=torch.zeros(1, dims))
    torch.testing.assert_close(points.positions[0], cell_centres((4,) * dims) * torch.tensor([-1.0] + [1.0] * (dims - 1)))
    assert points.known.all()


def test_a_quarter_turn_swaps_the_axes() -> None:
    turned = unmoved((8, 8))
    angle = math.pi / 2
    turned.theta[0, :, :2] = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    points = aligned(unmoved((8, 8)), turned, (2, 2), corner=torch.zeros(1, 2), other_corner=torch.zeros(1, 2))
    torch.testing.assert_close(points.positions[0], torch.tensor([[0.5, -0.5], [0.5, 0.5], [-0.5, -0.5], [-0.5, 0.5]]))


def test_crops_that_do_not_overlap_share_nothing() -> None:
    points = aligned(unmoved((8, 8)), unmoved((8, 8)), (4, 4), corner=torch.zeros(1, 2), other_corner=torch.tensor([[9.0, 0.0]]))
    assert not points.known.any()


def test_crops_of_two_scans_share_nothing() -> None:
    nowhere = torch.full((1, 2), float("nan"))
    points = aligned(unmoved((8, 8)), unmoved((8, 8)), (4, 4), corner=nowhere, other_corner=nowhere)
    assert not points.known.any()
    assert points.positions.isfinite().all()


def test_what_lies_beyond_the_edge_of_its_crop_is_not_known() -> None:
    wide = unmoved((8, 8))
    wide.theta[:, 0, 0] = 2.0  # shows twice the crop's width: half of it repeats the edge
    points = aligned(wide, unmoved((8, 8)), (4, 4), corner=torch.zeros(1, 2), other_corner=torch.zeros(1, 2))
    assert points.known[0].view(4, 4).tolist() == [[False, True, True, False]] * 4


def test_cell_centres_are_those_of_affine_grid() -> None:
    expected = F.affine_grid(torch.eye(3, 4)[None], [1, 1, 2, 3, 4], align_corners=False).view(-1, 3)
    torch.testing.assert_close(cell_centres((2, 3, 4)), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_features_at_cell_centres_are_the_cells(dims: int) -> None:
    features = torch.randn(2, 5, *SIZES[dims])
    found = sampled(features, cell_centres(SIZES[dims]).expand(2, -1, -1))
    torch.testing.assert_close(found, features.flatten(2).transpose(1, 2), atol=1e-5, rtol=0)


def test_points_of_chosen_cells_are_taken() -> None:
    points = aligned(unmoved((8, 8)), unmoved((8, 8)), (4, 4), corner=torch.zeros(1, 2), other_corner=torch.zeros(1, 2))
    torch.testing.assert_close(points.at(torch.tensor([[5, 2]])).positions[0], cell_centres((4, 4))[[5, 2]])
