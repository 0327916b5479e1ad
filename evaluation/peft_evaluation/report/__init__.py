"""Reports: ``report.json`` and the Markdown and HTML files that are made from it."""
