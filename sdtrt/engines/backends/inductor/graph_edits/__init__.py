"""What several passes do to a traced graph or look for in it."""
