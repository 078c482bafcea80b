"""The table of Push-T, and the scripts that push on it."""
