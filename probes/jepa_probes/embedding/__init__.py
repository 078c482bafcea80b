"""`jepa embed`: latents of videos as tables, shards and colors."""
