"""Students built from a teacher, with their matching maps and adapters."""
