"""One map per survey: measured where it was rescanned, estimated elsewhere, and which is which."""
