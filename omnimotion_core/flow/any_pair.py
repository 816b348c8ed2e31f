"""The estimator's flow between any two frames, each pair started from nearer ones, for baselines."""

from collections import OrderedDict

import numpy as np

from omnimotion_core.config import FlowConfig
from omnimotion_core.devices import opencv_on_one_thread
from omnimotion_core.flow.consistency import compose, resize_flow
from omnimotion_core.flow.estimators import LearnedEstimator, create_estimator
from omnimotion_core.flow.estimators.dis import DisFlow
from omnimotion_core.flow.estimators.imported_tracks import ImportedTracks
from omnimotion_core.flow.matching import FrameBank, input_size, memo_size
from omnimotion_core.video.clip import Clip

_FRAMES_KEPT = 16
_MEMO_BYTES = 256 << 20  # of flow kept as first guesses


class AnyPairFlow:
    """Dense flow from frame i to j, called as ``flow(i, j)``: (H, W, 2) float32 at plate size in plate pixels.

    Where the estimator refines, a pair starts from what was found of one with a common end whose gap is a frame less,
    or else from its two halves composed. Ask for short gaps before long ones. DIS for imported tracks.

    Raises:
        FlowError: a learned estimator's weights are missing or cannot be used.
    """

    def __init__(self, clip: Clip, config: FlowConfig, device: str = "cpu") -> None:
        estimator = create_estimator(
            config.estimator, clip, weights=config.weights, device=device, full_size=config.full_size
        )
        if isinstance(estimator, ImportedTracks):  # which have no dense flow
            estimator = DisFlow(full_size=config.full_size)
        size = input_size(estimator, clip.working_size, config.long_side)
        if isinstance(estimator, LearnedEstimator):
            estimator.load(size)
        given = estimator.pairs()
        self._given = None if given is None else frozenset(given)
        self._bank = FrameBank(clip, estimator, size, capacity=_FRAMES_KEPT, needs_features=False)
        self._memo_size = memo_size(clip.working_size)
        self._memos: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()  # float16 at memo size
        self._most_memos = max(16, _MEMO_BYTES // (4 * self._memo_size[0] * self._memo_size[1]))

    def available(self, i: int, j: int) -> bool:
        """Whether there is flow of the pair, there and back."""
        return self._given is None or ((i, j) in self._given and (j, i) in self._given)

    def forget(self) -> None:
        """Drop what is kept as first guesses."""
        self._memos.clear()

    def __call__(self, i: int, j: int) -> np.ndarray:
        """Flow from i to j."""
        bank = self._bank
        with opencv_on_one_thread():
            start = self._start(i, j) if bank.estimator.refines else None
            if start is not None:
                start = resize_flow(start, bank.matching_size)
            flow = bank.estimator.flow(bank.frame(i).prepared, bank.frame(j).prepared, start)
            if bank.estimator.refines:
                self._memos[i, j] = resize_flow(flow, self._memo_size).astype(np.float16)
                self._memos.move_to_end((i, j))
                while len(self._memos) > self._most_memos:
                    self._memos.popitem(last=False)
            return resize_flow(flow, bank.clip.size)

    def _start(self, i: int, j: int) -> np.ndarray | None:
        toward, middle = (1 if j > i else -1), (i + j) // 2
        for nearer in ((i, j - toward), (i + toward, j)):
            if nearer in self._memos:
                return self._memos[nearer].astype(np.float32)
        halves = self._memos.get((i, middle)), self._memos.get((middle, j))
        if halves[0] is None or halves[1] is None:
            return None
        return compose(halves[0].astype(np.float32), halves[1].astype(np.float32))
