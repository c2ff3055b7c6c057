"""Facts about the machine, files, JSON records, memory and hub ids: the base of all other packages."""
