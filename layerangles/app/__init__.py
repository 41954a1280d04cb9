"""The interactive comparison: sources → catalogue → resolved view → page, and comparisons in notebooks."""
