"""WebDataset tars with a manifest and an index: written once, read by byte offset, in an order that can be computed."""
