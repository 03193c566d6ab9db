"""One stack: planned in chunks, computed, retried and put together."""
