"""How the coarse and the fine map of a pair lie on each other."""
