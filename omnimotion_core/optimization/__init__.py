"""Fitting a motion field to a clip's correspondences."""
