"""One file, one published method: the whole algorithm on one screen."""
