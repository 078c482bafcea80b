"""`jepa compress`: fewer or narrower tokens, and what the probes lose."""
