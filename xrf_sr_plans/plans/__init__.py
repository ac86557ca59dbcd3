"""Plans: messages only, everything checked before anything moves."""
