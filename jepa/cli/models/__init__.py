"""Verbs that write models: `export`, `import`, `compress`."""
