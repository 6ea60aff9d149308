"""What a corpus or an evaluation set says about itself: Croissant metadata and a datasheet."""
