"""Where to look again: element queries, the region picker, and the budget it has to fit in."""
