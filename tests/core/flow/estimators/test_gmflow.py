"""GMFlow against what the published code computes from the same weights, against exact truth, and as an estimator."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from omnimotion_core.flow.estimators.dis import DisFlow
from omnimotion_core.flow.estimators.gmflow import GmFlowEstimator, choose_size
from omnimotion_core.flow.estimators.gmflow_network import RADIUS, _match_all, _match_near, _Windows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gmflow(weights: Path) -> GmFlowEstimator:
    estimator = GmFlowEstimator(weights / "gmflow.pth", CPU)
    estimator.load((128, 96))
    return estimator


@pytest.mark.parametrize("splits", [(2, 8), (2, 4)])
def test_flow_is_that_of_the_published_code(golden: Path, gmflow: GmFlowEstimator, splits: tuple[int, int]) -> None:
    truth = np.load(golden / "gmflow.npz")
    expected = truth[f"flow_splits_{splits[0]}_{splits[1]}"]
    with torch.inference_mode():
        features = [gmflow.network.encode(torch.from_numpy(truth[name]).permute(2, 0, 1)[None].float())
                    for name in ("image1", "image2")]  # fmt: skip
        forward, _ = gmflow.network(*features, splits)
    error = np.abs(forward[0].permute(1, 2, 0).numpy() - expected)
    assert error.max() < 1e-3
    assert error.mean() < 1e-4


def test_matching_is_the_mean_of_targets_weighted_by_agreement() -> None:
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.randn(1, 128, 5, 6, generator=generator) for _ in range(2))
    everywhere, near = _match_all(source, target)[0], _match_near(source, target)[0]
    pixels = [(x, y) for y in range(5) for x in range(6)]
    for x, y in pixels[::7]:
        agreement = torch.stack([(source[0, :, y, x] * target[0, :, v, u]).sum() / 128**0.5 for u, v in pixels])
        vectors = torch.tensor([(u - x, v - y) for u, v in pixels], dtype=torch.float32)
        torch.testing.assert_close(everywhere[:, y, x], agreement.softmax(0) @ vectors, atol=1e-5, rtol=0)
        close = vectors.abs().amax(dim=1) <= RADIUS
        torch.testing.assert_close(near[:, y, x], agreement[close].softmax(0) @ vectors[close], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shifted", [False, True])
def test_attention_stays_within_its_window(shifted: bool) -> None:
    height, width, splits = 8, 12, 2
    windows = _Windows(height, width, splits, CPU)
    value = torch.eye(height * width)[None, :, :]
    zero = torch.zeros(1, height * width, 4)
    seen = windows.attend(zero, zero, value, shifted=shifted)[0] > 1e-20  # which pixels reach which
    sy, sx = (height // splits // 2, width // splits // 2) if shifted else (0, 0)
    y, x = np.divmod(np.arange(height * width), width)
    # shifted windows begin half a window in, and what is left at the two ends of a side does not meet around the border
    window = (y - sy) // (height // splits) * 10 + (x - sx) // (width // splits)
    np.testing.assert_array_equal(seen.numpy(), window[:, None] == window[None, :])


def test_a_size_that_does_not_divide_into_windows_is_our_bug() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        _Windows(9, 12, 2, CPU)


@pytest.mark.parametrize(
    ("picture", "size", "splits"),
    [
        ((256, 256), (384, 384), (2, 4)),  # enlarged 1.5 times
        ((320, 192), (480, 288), (2, 4)),
        ((96, 128), (288, 384), (2, 4)),  # enlarged three times
        ((64, 48), (192, 144), (2, 2)),
        ((512, 400), (512, 400), (2, 4)),
        ((854, 480), (736, 416), (2, 4)),  # shrunk
        ((1920, 1080), (736, 416), (2, 4)),
    ],
)
def test_the_size_suits_the_picture(picture: tuple[int, int], size: tuple[int, int], splits: tuple[int, int]) -> None:
    assert choose_size(picture) == (size, splits)


@pytest.mark.parametrize("picture", [(854, 480), (1920, 1080)])
def test_on_a_cpu_pictures_are_shrunk_to_what_small_ones_get(picture: tuple[int, int]) -> None:
    estimator = GmFlowEstimator(None, CPU)
    assert estimator._size_for(picture) == ((512, 288), (2, 4))
    assert estimator._size_for((256, 256)) == choose_size((256, 256)) == ((384, 384), (2, 4))


def test_every_size_divides() -> None:
    for width in range(9, 2000, 37):
        for height in (8, 33, 100, 270, 480, 1080):
            size, (coarse, fine) = choose_size((width, height))
            assert all(side % (8 * coarse) == 0 and side % (4 * fine) == 0 and side > 0 for side in size)


def test_a_known_shift_is_found_on_a_small_picture(gmflow: GmFlowEstimator) -> None:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (112, 144, 3), np.uint8), (0, 0), 2.0)
    texture = np.clip((texture.astype(np.float32) - 127) * 6 + 127, 0, 255).astype(np.uint8)
    first, second = texture[8:104, 8:136], texture[3:99, 14:142]  # moved by (-6, 5)
    forward, backward = gmflow.flow_pairs([(gmflow.prepare(0, first), gmflow.prepare(1, second))])[0]
    inner = np.s_[16:-16, 16:-16]
    assert forward.shape == (96, 128, 2)
    assert np.linalg.norm(np.median(forward[inner], axis=(0, 1)) - (-6, 5)) < 0.25
    assert np.linalg.norm(np.median(backward[inner], axis=(0, 1)) - (6, -5)) < 0.25


def test_pairs_together_give_what_each_gives_alone(gmflow: GmFlowEstimator) -> None:
    rng = np.random.default_rng(1)
    frames = [gmflow.prepare(t, cv2.GaussianBlur(rng.integers(0, 255, (48, 64, 3), np.uint8), (0, 0), 3.0))
              for t in range(3)]  # fmt: skip
    together = gmflow.flow_pairs([(frames[0], frames[1]), (frames[1], frames[2])])
    alone = gmflow.flow_pairs([(frames[1], frames[2])])[0]
    swapped = gmflow.flow_pairs([(frames[2], frames[1])])[0]
    np.testing.assert_allclose(together[1], alone, atol=0.01)
    np.testing.assert_allclose(swapped[::-1], alone, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("clip", "pair", "bound_px"), [("orbit", (0, 8), 2.5), ("flag", (11, 19), 2.5)])
def test_over_a_long_gap_it_is_far_better_than_dis(
    clips: Path, gmflow: GmFlowEstimator, clip: str, pair: tuple[int, int], bound_px: float
) -> None:
    folder = clips / "rendered" / clip
    files = sorted((folder / "frames").glob("*.png"))
    pictures = [cv2.imread(str(files[t])) for t in pair]
    frames = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures if picture is not None]
    with np.load(folder / "flow.npz") as truth:
        flow = truth["flow_{}_{}".format(*pair)].astype(np.float32)
        visible = np.unpackbits(truth["vis_{}_{}".format(*pair)])[: flow[..., 0].size].reshape(flow.shape[:2]) > 0

    def mean_error(estimator: DisFlow | GmFlowEstimator) -> float:
        prepared = [estimator.prepare(t, frame) for t, frame in enumerate(frames)]
        found = estimator.flow(prepared[0], prepared[1], None)  # type: ignore[arg-type]
        return float(np.linalg.norm(found - flow, axis=-1)[visible].mean())

    learned, classical = mean_error(gmflow), mean_error(DisFlow())
    assert learned < bound_px
    assert learned < classical / 4
