"""Measures of how good an enhanced map and its uncertainty are, each with its published source."""
