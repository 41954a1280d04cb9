"""Results become pages: one HTML file with text, tables and figures that opens from disk without a network."""
