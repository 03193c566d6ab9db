"""Stars: found, matched between frames, and the transforms and flux scales that follow."""
