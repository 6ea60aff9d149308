"""Makes corpora: pictures with words, in splits, and the evaluation sets that go with them."""
