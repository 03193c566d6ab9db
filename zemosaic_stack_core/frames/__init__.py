"""Frames as rows of samples: FITS and ``.npy`` files by position, arrays of any library, masks and planes."""
