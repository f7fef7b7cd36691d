"""What is checked: the interpreted program at level 2, a generated module at level 3."""
