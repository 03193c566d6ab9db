"""How the existing ZeMosaic program calls this library: its names, its settings, its plan."""
