"""Trained models: built from configs, saved, loaded, imported and exported."""
