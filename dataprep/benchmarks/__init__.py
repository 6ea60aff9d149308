"""The evaluation sets, in the layouts in which BabyVLM published its own."""
