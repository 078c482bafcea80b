"""Learning online: collect episodes, learn a world model from them, and a controller in its dreams."""
