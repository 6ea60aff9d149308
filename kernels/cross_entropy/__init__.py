"""Linear cross-entropy: losses of a vocabulary whose logits are never held whole."""
