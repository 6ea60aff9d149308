"""Rewriting captions of general pictures into what a caregiver says to a small child."""
