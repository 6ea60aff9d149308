"""Frames out of videos: the right one for every time stamp, decoded as little as possible."""
