import cv2
import numpy as np

from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.flow.estimators.dis import COARSE_LONGEST_SIDE, DisFlow
from omnimotion_core.video.clip import Clip


def test_flow_between_neighbors_is_near_the_truth(scene: Scene, shot: Clip) -> None:
    dis = DisFlow()
    flow = dis.flow(dis.prepare(4, shot.rgb8(4)), dis.prepare(5, shot.rgb8(5)), None)
    exact, visible = scene.flow(4, 5)
    assert np.median(np.linalg.norm(flow - exact, axis=-1)[visible]) < 0.3


def test_a_flow_does_not_depend_on_those_before_it(shot: Clip) -> None:
    dis = DisFlow()
    a, b, c = (dis.prepare(t, shot.rgb8(t)) for t in (0, 1, 2))
    alone = dis.flow(a, b, None)
    guess = np.full((96, 128, 2), 9.0, np.float32)
    guided = dis.flow(b, c, guess)
    assert guess.min() == guess.max() == 9.0
    np.testing.assert_array_equal(dis.flow(a, b, None), alone)
    dis.flow(c, a, np.zeros_like(guess))
    np.testing.assert_array_equal(dis.flow(b, c, guess), guided)


def test_a_good_guess_finds_long_motion() -> None:
    picture = Scene.make(2, (240, 160), seed=2).render(0)
    dis = DisFlow()
    source, target = dis.prepare(0, picture[:, :160].copy()), dis.prepare(1, picture[:, 60:220].copy())
    exact = np.broadcast_to(np.array([-60, 0], np.float32), (160, 160, 2))

    def error(initial: np.ndarray | None) -> float:
        flow = dis.flow(source, target, initial)[:, 70:150]
        return float(np.median(np.linalg.norm(flow - exact[:, 70:150], axis=-1)))

    assert error(exact + np.array([2, 1], np.float32)) < 0.2
    assert error(None) > 5


def test_full_size_finds_fine_motion_better_than_half() -> None:
    y, x = np.mgrid[:96, :336].astype(np.float32)
    assert x.shape[1] > COARSE_LONGEST_SIDE
    still = Scene.make(2, (336, 96), seed=7).render(0).astype(np.float32)
    fine = cv2.resize(np.random.default_rng(5).random((32, 112), np.float32), (336, 96), interpolation=cv2.INTER_CUBIC)
    source = (0.5 * still + 110 * fine[..., None]).clip(0, 255).astype(np.uint8)
    motion = np.stack([1.5 * np.sin(y * 0.4), 1.5 * np.cos(x * 0.35)], -1)  # where a pixel of the second comes from
    origin = (np.stack([x, y], -1) - motion).astype(np.float32)
    second = cv2.remap(source, origin[..., 0], origin[..., 1], cv2.INTER_CUBIC)

    def error(full_size: bool) -> float:
        dis = DisFlow(full_size=full_size)
        flow = dis.flow(dis.prepare(1, second), dis.prepare(0, source), None)
        return float(np.linalg.norm(flow + motion, axis=-1)[8:-8, 8:-8].mean())

    assert error(True) < 0.9 * error(False)
