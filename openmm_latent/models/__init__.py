"""The families, one file or folder each; families never import one another."""
