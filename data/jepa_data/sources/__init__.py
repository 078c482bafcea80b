"""Raw corpora to shards: one file a kind of source."""
