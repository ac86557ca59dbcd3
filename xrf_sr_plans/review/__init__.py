"""Ways to look at a survey: the latest one, its record and its picture."""
