"""WebDataset tars with a manifest and an index, read by byte offset in any order."""
