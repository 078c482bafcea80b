"""World models side by side: the same data, budget, probes and tasks for each, and one table."""
