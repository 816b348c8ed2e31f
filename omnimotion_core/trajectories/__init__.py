"""Answers of a fitted field: where points go, and dense flow between any two frames."""
