"""The console: what a session shows at its prompt, and what is typed there besides plans."""
