"""What a run is: its typed description, and the parts that the description names."""
