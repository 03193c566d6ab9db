"""The machine underneath: memory, files written whole, stamps of files, processes."""
