import torch
from torch import Tensor

from medssl.models.architecture import Architecture, Network
from medssl.models.inference import Window, probabilities, slice_scores, with_context


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
    output = probabilities(Centre(), image, Window((8, 8), context=3))
    torch.testing.assert_close(output, image[0].sigmoid(), atol=1e-4, rtol=1e-4)


def test_a_scan_smaller_than_the_window_is_padded_and_cut_back() -> None:
    image = torch.randn(1, 6, 5, 2)
    torch.testing.assert_close(probabilities(Centre(), image, Window((8, 8), context=3)), image[0].sigmoid(), atol=1e-4, rtol=1e-4)


def test_the_score_of_a_slice_is_the_mean_of_its_highest_voxels() -> None:
    lesion = torch.zeros(10, 10, 2)
    lesion[0, :2, 1] = torch.tensor([0.8, 0.4])
    torch.testing.assert_close(slice_scores(lesion, share=0.02), torch.tensor([0.0, 0.6]))
