"""Files and pictures out, each written whole or not at all."""
