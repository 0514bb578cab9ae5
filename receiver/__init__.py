"""Wavehook's receiver: verified, stored once, handled until it is done."""
