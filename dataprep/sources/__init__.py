"""Files as their owners hold them, read into the corpus format."""
