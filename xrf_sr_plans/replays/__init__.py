"""Stored runs analyzed again, by the thousand: which ones, where, and what is kept of it."""
