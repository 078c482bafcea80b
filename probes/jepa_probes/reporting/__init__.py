"""The numbers of a run as results, figures and one HTML page."""
