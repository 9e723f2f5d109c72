import pytest
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.models.architecture import Architecture, Network
from medssl.models.inference import Window, foreground_box, probabilities, slice_scores, with_context


class Centre(Network):
    """Returns its middle channel as logit."""

    task = "segmentation"
    spatial_dims = 2
    in_channels = 3

    def architecture(self) -> Architecture:
        return Architecture.of(self)

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 1:2]


def test_a_slice_sees_its_neighbours_and_edges_repeat() -> None:
    image = torch.arange(4.0).view(1, 1, 1, 4)
    assert with_context(image, 3)[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]


def test_the_map_of_a_scan_lies_where_the_scan_lies() -> None:
    image = torch.randn(1, 20, 12, 5)
    output = probabilities(Centre(), image, Window((8, 8), context=3, foreground=False))
    torch.testing.assert_close(output, image[0].sigmoid(), atol=1e-4, rtol=1e-4)


def test_a_scan_smaller_than_the_window_is_padded_and_cut_back() -> None:
    image = torch.randn(1, 6, 5, 2)
    window = Window((8, 8), context=3, foreground=False)
    torch.testing.assert_close(probabilities(Centre(), image, window), image[0].sigmoid(), atol=1e-4, rtol=1e-4)


def test_the_score_of_a_slice_is_the_mean_of_its_highest_voxels() -> None:
    lesion = torch.zeros(10, 10, 2)
    lesion[0, :2, 1] = torch.tensor([0.8, 0.4])
    torch.testing.assert_close(slice_scores(lesion, share=0.02), torch.tensor([0.0, 0.6]))


def test_nothing_is_found_outside_the_box_of_the_foreground() -> None:
    image = torch.zeros(1, 40, 30, 6)
    image[:, 12:22, 5:15, 2:4] = torch.rand(1, 10, 10, 2) + 1
    box = foreground_box(image, (8, 8))
    assert box == (slice(11, 23), slice(4, 16), slice(2, 4))  # the mean over 3 x 3 voxels adds a rim of one
    output = probabilities(Centre(), image, Window((8, 8), context=3))
    torch.testing.assert_close(output[box], image[0][box].sigmoid(), atol=1e-4, rtol=1e-4)
    assert output.count_nonzero() == output[box].numel()


def test_the_box_is_widened_to_a_window_and_stays_inside_the_scan() -> None:
    image = torch.zeros(1, 40, 6, 3)
    image[:, 38:, 1:3] = 1
    assert foreground_box(image, (8, 8)) == (slice(32, 40), slice(0, 6), slice(0, 3))
    assert foreground_box(torch.zeros(1, 9, 9, 2), (8, 8)) == (slice(0, 9), slice(0, 9), slice(0, 2))


def test_a_bright_speck_in_the_air_does_not_widen_the_box() -> None:
    image = torch.zeros(1, 40, 40, 20)
    image[:, 12:28, 12:28] = torch.rand(1, 16, 16, 20) + 1
    image[0, 0, 0, 0] = 2
    assert foreground_box(image, (8, 8))[:2] == (slice(11, 29), slice(11, 29))


def test_a_few_voxels_below_air_leave_air_outside_the_box() -> None:
    image = torch.zeros(1, 40, 40, 4)
    image[:, 12:28, 12:28] = 10
    image[:, 10:12, 15:20, 0] = -4  # ringing
    assert foreground_box(image, (8, 8))[:2] == (slice(11, 29), slice(11, 29))


class Corner(Centre):
    """Returns its middle channel, but nothing right of the first column and below the first row of a window."""

    def forward(self, images: Tensor) -> Tensor:
        kept = torch.zeros_like(images[:, 1:2])
        kept[:, :, 0, 0] = images[:, 1, 0, 0, None]
        return kept


def test_all_mirror_images_of_the_asked_axes_are_averaged() -> None:
    image = torch.ones(1, 4, 4, 1)
    output = probabilities(Corner(), image, Window((4, 4), context=3, flips=(0, 1), foreground=False))[..., 0]
    corners = torch.zeros(4, 4)
    corners[::3, ::3] = 0.25  # each of four images sees one corner, and logits are averaged
    torch.testing.assert_close(output, corners.sigmoid(), atol=1e-4, rtol=1e-4)


def test_the_left_right_image_alone_is_the_default() -> None:
    assert Window((4, 4)).mirrors == Window((4, 4), flips=(0,)).mirrors == [(), (0,)]
    assert Window((4, 4), flips=False).mirrors == Window((4, 4), flips=()).mirrors == [()]


@pytest.mark.parametrize("axes", [(2,), (0, 0), (-1,)])
def test_a_mirror_axis_that_windows_do_not_have_is_refused(axes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="below 2"):
        Window((4, 4), flips=axes)
