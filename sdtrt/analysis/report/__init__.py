"""Reports of one analysis: HTML, text and Excel."""
