"""Mergeable sums over tokens, clustered by example."""
