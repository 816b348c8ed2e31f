"""Optical flow between pairs of frames, and the matches it gives the model to learn from."""
