"""Files of many questions: rows in, answers out, and what is done already. Runs no models."""
