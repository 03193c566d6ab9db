"""FITS as bytes: one scanner of cards, one writer, and what observers write into headers."""
