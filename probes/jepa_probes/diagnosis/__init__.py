"""What binds? Each link of a planning agent is replaced by the truth, one at a time, and the tasks are played again."""
