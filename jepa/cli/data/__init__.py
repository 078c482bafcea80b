"""`jepa data`: one file a verb."""
