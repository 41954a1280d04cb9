"""Parts shared by all figures: theme, frame, panels, rows, export."""
