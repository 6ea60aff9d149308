"""Ops that read a row once: norms with their residual, activations, rotary positions."""
