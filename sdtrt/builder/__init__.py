"""Builds: the plan, its execution, the reasons for a rebuild, and estimates of time and memory."""
