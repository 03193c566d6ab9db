"""The report of a night: one page of HTML."""
