"""The report page: what it plays and shows, its templates, style and script."""
