import math

import torch
import torch.nn.functional as F

from medssl.models.neighbours import Neighbours
from medssl.models.vit import ViT


def network(task: str = "classification", **options: object) -> Neighbours:
    encoder = ViT((4, 4), width=8, depth=1, heads=2)
    return Neighbours(encoder, task=task, size=12, neighbours=3, **options).eval()  # type: ignore[arg-type]


def filled(found: Neighbours) -> Neighbours:
    torch.manual_seed(0)
    found.remember(torch.randn(12, 8), (torch.rand(12, found.classes) > 0.5).float())
    return found


def test_scores_are_the_weighted_shares_of_the_nearest() -> None:
    known, asked = filled(network()), torch.randn(4, 8)
    for feature, logit in zip(asked, known.asked(asked), strict=True):
        likeness = [float(F.cosine_similarity(feature, one, dim=0)) for one in known.bank]
        nearest = sorted(range(12), key=lambda n: -likeness[n])[:3]
        votes = {n: math.exp((likeness[n] - 1) / 0.07) for n in nearest}
        yes = 1e-3 + sum(vote for n, vote in votes.items() if known.answers[n] == 1)
        no = 1e-3 + sum(vote for n, vote in votes.items() if known.answers[n] == 0)
        assert math.isclose(float(logit), math.log(yes / no), rel_tol=1e-3, abs_tol=1e-4)


def test_of_answers_that_exclude_each_other_the_softmax_is_the_share_of_each() -> None:
    known = Neighbours(ViT((4, 4), width=8, depth=1, heads=2), task="classification", size=10, classes=3, neighbours=10, exclusive=True)
    known.remember(torch.ones(10, 8), F.one_hot(torch.tensor([0] * 7 + [1] * 2 + [2])).float())
    shares = known.asked(torch.ones(1, 8)).softmax(dim=1)
    torch.testing.assert_close(shares, torch.tensor([[0.7, 0.2, 0.1]]), atol=1e-3, rtol=0)


def test_a_nearer_neighbour_of_the_same_answer_scores_higher() -> None:
    known = network()
    known.remember(torch.eye(8).repeat(2, 1)[:12], torch.ones(12, 1))
    near, far = torch.zeros(2, 8).index_put((torch.tensor([0, 1]), torch.tensor([0, 0])), torch.ones(2))
    assert known.asked(near[None]) > known.asked((far + torch.ones(8))[None])


def test_answers_have_the_shape_of_the_task() -> None:
    images = torch.randn(2, 1, 16, 12)
    assert filled(network(classes=3))(images).shape == (2, 3)
    assert filled(network("segmentation"))(images).shape == (2, 1, 16, 12)


def test_it_is_rebuilt_with_what_it_remembers() -> None:
    known, images = filled(network("segmentation", exclusive=True)), torch.randn(1, 1, 16, 16)
    rebuilt = known.architecture().build().eval()
    rebuilt.load_state_dict(known.state_dict())
    assert rebuilt(images).equal(known(images))


def test_a_description_from_before_answers_could_exclude_each_other_is_the_same() -> None:
    assert "exclusive" not in network().architecture().init_args
