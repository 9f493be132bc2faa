"""The corpus: its files, on disk or at a URL, their conversion, and the manifest of the results."""
