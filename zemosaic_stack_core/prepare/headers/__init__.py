"""What headers and names claim about frames."""
