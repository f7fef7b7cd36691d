"""Reports for people: derived equations as text, LaTeX and HTML."""
