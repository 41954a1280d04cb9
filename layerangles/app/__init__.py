"""The interactive comparison: sources → catalogue → view → page; only the server knows of Dash."""
