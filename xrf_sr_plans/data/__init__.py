"""The measured map that ships with the package; see README.md beside it."""
