"""What rules share: the view that each is given, and what kernels and copies tell."""
