"""Drift statistics, pure."""
