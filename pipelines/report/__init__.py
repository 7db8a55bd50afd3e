"""Pages for people: self-contained HTML, with every text escaped."""
