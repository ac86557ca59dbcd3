"""Approval of regions: what is proposed, who decided what and why, and what became of it."""
