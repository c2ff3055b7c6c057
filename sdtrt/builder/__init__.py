"""sdtrt.build: what to do, doing it, and how long and how much memory it takes."""
