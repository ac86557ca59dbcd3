"""What the settings name, looked at before the first survey: what is there and what fits."""
