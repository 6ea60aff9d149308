"""The picture book: stamps and emoji as a child would see and hear them named."""
