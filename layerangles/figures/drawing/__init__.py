"""Parts that all figures are drawn with: theme, panels, keys, rows, export."""
