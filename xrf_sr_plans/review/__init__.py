"""Looking at a survey: the latest one, its record, its picture."""
