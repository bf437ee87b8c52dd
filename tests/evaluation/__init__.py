"""Tests of grading and calibration."""
