"""The bundle on disk: what its manifest says, opening one, writing one, and sending it to the hub."""
