"""The verbs that train controllers, and the one that lets a person drive."""
