"""Looking at data before training on it: what is there, whether it is sound, how fast it is read."""
