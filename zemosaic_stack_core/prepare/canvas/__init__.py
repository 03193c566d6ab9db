"""The grid that frames are resampled onto, and their levels on it."""
