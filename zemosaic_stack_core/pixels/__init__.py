"""What the kernel is made of: samples, sorted columns, sums, and what a rule loses."""
