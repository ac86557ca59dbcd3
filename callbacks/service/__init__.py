"""The process that the analysis runs in: how it is started, watched, restarted and caught up."""
