"""Labelled results, and the table of everything that is measured."""
