"""Builders that tests share: small models, studies, jobs, sources, and a browser."""
