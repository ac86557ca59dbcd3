"""The process that the analysis runs in: started, watched, restarted, caught up."""
