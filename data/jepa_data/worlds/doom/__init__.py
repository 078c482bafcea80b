"""The world doom-rooms: map, renderer, batch."""
