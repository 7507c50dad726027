"""Photos to train on and to measure with, and the weights that come with the package."""
