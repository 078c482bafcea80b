"""Controllers that learn in a model's dreams, and what the dreams are worth in the world."""
