"""The report of an evaluation: one HTML file with pictures and a browser of single problems."""
