"""Losses over all pairs of images and texts, without the matrix of pairs."""
