"""Commands: one file each, with `run` and `EXAMPLES`; the file's name is the command's."""

# As `sdtrt --help` lists them, along the way of a new user; a command that is not named here comes last.
ORDER = ("doctor", "build", "why", "generate", "analyze", "compare", "bench", "verify", "push", "pull", "demo")
