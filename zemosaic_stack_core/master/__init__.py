"""A master on disk: written, read, explained and made again."""
