"""The data half, demonstrated: every command run on films and pictures made from packages."""
