"""Conversations: as values, on disk, and the prompt that they are typed at. Runs no model."""
