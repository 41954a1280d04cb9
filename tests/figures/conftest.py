"""A real browser for these tests."""

from toys.chromium import browser  # noqa: F401 - a fixture
