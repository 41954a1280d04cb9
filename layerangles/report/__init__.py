"""Reports on studies: self-contained HTML pages, the wording of verdicts, LaTeX tables, and citations."""
