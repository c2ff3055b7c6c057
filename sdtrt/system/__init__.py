"""Facts about the machine, files, JSON records and the C heap: what everything else stands on."""
