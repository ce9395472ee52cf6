"""Processes, signals, threads and memory."""
