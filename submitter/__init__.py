"""Wavehook's submitter: talks to the WaveSpeedAI API."""
