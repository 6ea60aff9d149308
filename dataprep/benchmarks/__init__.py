"""The evaluation sets in the layouts that BabyVLM published: labelled, two-word, winoground, caption."""
