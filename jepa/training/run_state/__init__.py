"""The folder of a run: what is written there, and how a run goes on from it."""
