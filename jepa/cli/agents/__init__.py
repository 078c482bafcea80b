"""The verbs that train controllers."""
