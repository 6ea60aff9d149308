"""Models: vision towers, connectors, decoders, and the two that are made of them."""
