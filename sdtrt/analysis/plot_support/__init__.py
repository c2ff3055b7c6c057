"""What plots share: layout, bins, stacked shares and module paths."""
