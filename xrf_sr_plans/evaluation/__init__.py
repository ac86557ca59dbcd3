"""How good a model is: on maps of the user's own, on samples whose truth is known, on own pairs."""
