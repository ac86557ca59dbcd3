"""A page in the browser on which surveys are watched and their regions approved."""
